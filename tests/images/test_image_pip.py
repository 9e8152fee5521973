"""What pip's failures in an image mean, and what is said of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from clusterlm.node import image_build, image_pip

BASE: dict[str, Any] = {
    "name": "nvcr.io/nvidia/pytorch:24.08-py3",
    "python": "3.10.12",
    "guarded": {"torch": "2.5.0a0+872d972e41", "triton": "3.0.0"},
}

CONFLICT = """\
Collecting good (from -r /opt/clusterlm/requirements.txt (line 1))
  Downloading good-2.0-py3-none-any.whl (12 kB)
Collecting evilpkg==1.0 (from good->-r /opt/clusterlm/requirements.txt (line 1))
INFO: pip is looking at multiple versions of evilpkg to determine which version is compatible
ERROR: Cannot install evilpkg because these package versions have conflicting dependencies.

The conflict is caused by:
    evilpkg 1.0 depends on torch==2.9.9
    The user requested (constraint) torch==2.5.0a0+872d972e41

To fix this you could try to:
"""
PRERELEASE = """\
The conflict is caused by:
    newpkg[cuda] 3.1 depends on torch>=2.5
    The user requested (constraint) torch==2.5.0a0+872d972e41
"""
OTHER_CONFLICT = """\
ERROR: Cannot install numpy>=2.0 because these package versions have conflicting dependencies.

The conflict is caused by:
    The user requested numpy>=2.0
    The user requested (constraint) numpy==1.24.4
"""
NO_NETWORK = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('<pip._vendor
.urllib3.connection.HTTPSConnection>: Failed to establish a new connection: [Errno -3] Temporary
failure in name resolution')': /simple/peft/
ERROR: Could not find a version that satisfies the requirement peft (from versions: none)
"""
OLD_PYTHON = """\
ERROR: Ignored the following versions that require a different python version: 5.0.0 \
Requires-Python >=3.11
ERROR: Could not find a version that satisfies the requirement transformers==5.23.0 (from \
versions: 4.56.0, 4.57.0, 4.57.3)
ERROR: No matching distribution found for transformers==5.23.0
"""
FROM_PACKAGE = """\
ERROR: Could not find a version that satisfies the requirement torch==2.9.9 (from evilpkg) \
(from versions: none)
"""


INNOCENT = """\
Collecting evilpin==1.0 (from middle>=1->eviluser>=0.1->-r /opt/clusterlm/requirements.txt (line 2))
The conflict is caused by:
    goodpkg 1.0 depends on torch>=2.0
    evilpin 1.0 depends on torch==2.9.9
    The user requested (constraint) torch==2.5.0a0+872d972e41
"""
OLD_PIP = """\
Collecting middle>=1 (from eviluser)
Collecting evilpin==1.0 (from middle>=1)
The conflict is caused by:
    evilpin 1.0 depends on torch==2.9.9
    The user requested (constraint) torch==2.5.0a0+872d972e41
"""
NO_FROM = """\
Processing /wheelhouse/evilpin-1.0-py3-none-any.whl
ERROR: Cannot install eviluser because these package versions have conflicting dependencies.

The conflict is caused by:
    evilpin 1.0 depends on torch==2.9.9
    The user requested (constraint) torch==2.5.0a0+872d972e41
"""
NOT_AT_HAND = """\
ERROR: Cannot install numpy==1.26 and numpy>=1.17 because these package versions have conflicting \
dependencies.

The conflict is caused by:
    The user requested numpy>=1.17
    The user requested numpy==1.26

To fix this you could try to:
"""
NO_CANDIDATES = """\
The conflict is caused by:
    The user requested numpy>=9
    other 1.0 depends on numpy

Additionally, some packages in these conflicts have no matching distributions available for your \
environment:
    numpy

To fix this you could try to:
"""


def explained(
    output: str, *, has_wheelhouse: bool = False, written: tuple[str, ...] = ()
) -> tuple[int, str]:
    code, lines = image_pip.explain(output, BASE, has_wheelhouse=has_wheelhouse, written=written)
    return code, "\n".join(lines)


def test_a_conflict_about_torch_names_who_wants_what() -> None:
    code, text = explained(CONFLICT)
    assert code == image_build.EXIT_REPLACED
    assert text.startswith("evilpkg would replace the base's torch\n")
    assert "evilpkg 1.0 wants torch==2.9.9 (good asks for it)" in text
    assert "nvcr.io/nvidia/pytorch:24.08-py3 has torch 2.5.0a0+872d972e41" in text


def test_a_prerelease_of_the_base_may_be_too_old() -> None:
    code, text = explained(PRERELEASE)
    assert code == image_build.EXIT_REPLACED
    assert "newpkg[cuda] 3.1 wants torch>=2.5" in text
    assert text.startswith("newpkg would")


@pytest.mark.parametrize("output", [INNOCENT, OLD_PIP, NO_FROM])
def test_only_who_excludes_the_base_is_named_with_the_line_that_brings_it(output: str) -> None:
    code, text = explained(output, written=("goodpkg", "eviluser>=0.1"))
    assert code == image_build.EXIT_REPLACED
    assert text.startswith("evilpin would replace the base's torch\n")
    assert "evilpin 1.0 wants torch==2.9.9 (eviluser>=0.1 asks for it)" in text
    assert "goodpkg" not in text


@pytest.mark.parametrize(
    ("wish", "is_allowed"),
    [
        ("torch", True),
        ("torch>=2.0", True),
        ("torch[opt]>=2.0; python_version > '3'", True),
        ("torch==2.5.0a0", True),
        ("torch>=2.5", False),
        ("torch==2.9.9", False),
        ("torch @ https://host.example/torch.whl", False),
    ],
)
def test_a_wish_that_the_base_fulfils_is_no_fault(wish: str, *, is_allowed: bool) -> None:
    assert image_build.allows(wish, "2.5.0a0+872d972e41") is is_allowed


def test_without_packaging_only_a_pin_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pip._vendor.packaging", "packaging"):
        monkeypatch.setitem(sys.modules, f"{package}.specifiers", None)
    assert not image_build.allows("torch==2.9.9", "2.5.0a0+872d972e41")
    assert image_build.allows("torch==2.5.0a0", "2.5.0a0+872d972e41")
    assert image_build.allows("torch>=2.0", "2.5.0a0+872d972e41")


@pytest.mark.parametrize(
    ("output", "wish"), [(NOT_AT_HAND, "numpy==1.26"), (NO_CANDIDATES, "numpy>=9")]
)
def test_a_version_that_is_not_at_hand_is_no_conflict(output: str, wish: str) -> None:
    code, text = explained(output, has_wheelhouse=True)
    assert code == image_build.EXIT_REFUSED
    assert text.startswith(f"pip finds no {wish}\n")
    assert "into image.wheelhouse" in text


def test_two_pins_that_exclude_each_other_are_a_conflict() -> None:
    _, text = explained(NOT_AT_HAND.replace(">=1.17", ">=2"), has_wheelhouse=True)
    assert text.startswith("these packages do not go together\n")


def test_torch_that_no_index_has_is_the_same_refusal() -> None:
    code, text = explained(FROM_PACKAGE)
    assert code == image_build.EXIT_REPLACED
    assert "evilpkg wants torch==2.9.9" in text


def test_what_the_base_holds_is_told_from_what_was_asked() -> None:
    code, text = explained(OTHER_CONFLICT)
    assert code == image_build.EXIT_REFUSED
    assert "asked for: numpy>=2.0\n  the base holds numpy==1.24.4\n" in text


def test_without_a_network_a_mirror_and_a_wheelhouse_are_offered() -> None:
    code, text = explained(NO_NETWORK)
    assert code == image_build.EXIT_REFUSED
    assert "PIP_INDEX_URL" in text
    assert "image.wheelhouse" in text


def test_a_package_too_new_for_the_python_gets_the_newest_that_fits() -> None:
    code, text = explained(OLD_PYTHON)
    assert code == image_build.EXIT_REFUSED
    assert "the base has 3.10.12" in text
    assert text.endswith("transformers==4.57.3")


def test_an_unknown_failure_keeps_the_words_of_pip() -> None:
    _, text = explained("building\nerror: command 'gcc' failed\nand more\n")
    assert "error: command 'gcc' failed" in text


def test_pins_of_the_base_give_way_but_never_what_is_guarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opt = tmp_path
    (opt / "held.txt").write_text("numpy==1.24.4\nrich==12.0\ntorch==2.5.0a0\n")
    (opt / "constraints.txt").write_text("torch==2.5.0a0\n")
    monkeypatch.setattr(image_pip, "CONSTRAINTS", opt / "constraints.txt")
    monkeypatch.setattr(image_pip, "BASE_CONSTRAINTS", opt / "held.txt")
    assert image_pip._give_way(CONFLICT) == []
    assert image_pip._give_way(OTHER_CONFLICT) == ["numpy"]
    assert (opt / "held.txt").read_text() == "rich==12.0\ntorch==2.5.0a0\n"
    # once given way, the same conflict ends the build
    assert image_pip._give_way(OTHER_CONFLICT) == []
