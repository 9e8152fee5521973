"""The steps inside an image, outside of one: what pip's failures mean, what `verify` sees."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from clusterlm.node import image_base, image_build, image_pip, image_verify
from tests.bed.wheels import plain_wheel

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


def explained(output: str, *, has_wheelhouse: bool = False) -> tuple[int, str]:
    code, lines = image_pip.explain(output, BASE, has_wheelhouse=has_wheelhouse)
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


def test_a_secret_is_blotted_out_in_every_form() -> None:
    url = "https://user:p%40ss+word@host/simple"
    secrets = image_pip.secret_texts([url, "tok/en=1", "abc"])
    shown = "at https://user:p%40ss+word@host/simple p@ss+word p%40ss%2Bword tok%2Fen%3D1 tok/en=1"
    text = image_pip.blotted(shown, secrets)
    assert "ss" not in text
    assert "tok" not in text
    # too short to be told from a word
    assert image_pip.blotted("abc", secrets) == "abc"


@pytest.mark.parametrize(
    ("name", "is_guarded"),
    [
        *(
            (n, True)
            for n in ("torch", "Flash_Attn", "nvidia-nccl-cu12", "transformer_engine_cu12")
        ),
        *((n, True) for n in ("pytorch-triton-rocm", "apex", "nvidia-modelopt")),
        *((n, False) for n in ("torchmetrics", "numpy", "nvidia-ml-py", "pytorch-lightning")),
    ],
)
def test_what_is_guarded(name: str, *, is_guarded: bool) -> None:
    assert image_build.is_guarded(name) is is_guarded


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image in miniature: a torch, and /opt/clusterlm, in folders of the test."""
    folder = tmp_path / "site"
    _install(folder, "torch", "2.5.0a0", files={"torch/__init__.py": b"", "torch/v.py": b"1"})
    (folder / "torch.py").unlink()
    root = tmp_path / "opt"
    monkeypatch.setattr(sys, "path", [str(folder)])
    monkeypatch.setattr(image_build, "apt_versions", dict)
    for module in (image_base, image_verify):
        for name, leaf in (
            ("ROOT", ""),
            ("BASE", "base.json"),
            ("CONSTRAINTS", "constraints.txt"),
            ("BASE_CONSTRAINTS", "held.txt"),
        ):
            monkeypatch.setattr(module, name, root / leaf, raising=False)
        monkeypatch.setattr(module, "apt_versions", dict)
    for name, leaf in (("PYTHON", "python"), ("ENVIRONMENT", "environment")):
        monkeypatch.setattr(image_verify, name, root / leaf)
    monkeypatch.setattr(image_verify, "RECORD", root / "image.json")
    monkeypatch.setattr(image_verify, "_clusterlm_package", lambda version: folder / "torch")
    image_base.record_base("a/base:1")
    return folder


def _install(site: Path, name: str, version: str, **more: Any) -> None:
    """Unpack a wheel that was made up."""
    import zipfile

    site.mkdir(exist_ok=True)
    zipfile.ZipFile(plain_wheel(site, name, version, **more)).extractall(site)


def verify(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and refusal of `verify`."""
    capsys.readouterr()
    try:
        image_verify.verify_image("r" * 64, "0.1.0", ["MINE"])
    except SystemExit as end:
        return int(str(end.code)), capsys.readouterr().err
    return 0, ""


def test_constraints_hold_what_the_base_has(site: Path) -> None:
    assert (site.parent / "opt/constraints.txt").read_text() == "torch==2.5.0a0\n"


def test_a_torch_built_with_numpy_1_keeps_it(site: Path) -> None:
    _install(site, "numpy", "1.24.4")
    image_base.record_base("a/base:1")
    assert (site.parent / "opt/constraints.txt").read_text() == "torch==2.5.0a0\nnumpy<2\n"


def test_pins_of_the_base_give_way_but_never_what_is_guarded(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opt = site.parent / "opt"
    (opt / "held.txt").write_text("numpy==1.24.4\nrich==12.0\ntorch==2.5.0a0\n")
    (opt / "constraints.txt").write_text("torch==2.5.0a0\n")
    monkeypatch.setattr(image_pip, "CONSTRAINTS", opt / "constraints.txt")
    monkeypatch.setattr(image_pip, "BASE_CONSTRAINTS", opt / "held.txt")
    assert image_pip._give_way(CONFLICT) == []
    assert image_pip._give_way(OTHER_CONFLICT) == ["numpy"]
    assert (opt / "held.txt").read_text() == "rich==12.0\ntorch==2.5.0a0\n"
    # once given way, the same conflict ends the build
    assert image_pip._give_way(OTHER_CONFLICT) == []


def test_an_untouched_torch_passes_and_the_record_says_so(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(site, "harmless", "1.0", requires=("torch",))
    monkeypatch.setenv("MINE", 'it\'s "mine" $HOME')
    monkeypatch.setenv("HTTPS_PROXY", "http://user:word@proxy:1")
    assert verify(capsys) == (0, "")
    record = json.loads((site.parent / "opt/image.json").read_text())
    assert record["recipe"] == "r" * 64
    assert record["guarded"] == {"torch": "2.5.0a0"}
    assert record["python"] == sys.executable
    environment = (site.parent / "opt/environment").read_text()
    assert "export MINE='it'\"'\"'s \"mine\" $HOME'\n" in environment
    assert "proxy" not in environment.lower()
    assert "export HOME=" not in environment


def test_another_version_names_who_wanted_it(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in site.glob("torch-*"):
        path.rename(site / f"gone-{path.name}") if path.suffix == ".whl" else _remove(path)
    _install(site, "torch", "2.9.9")
    _install(site, "culprit", "3.0", requires=("torch==2.9.9", "other; extra == 'x'"))
    code, text = verify(capsys)
    assert code == image_build.EXIT_REPLACED
    assert "torch 2.5.0a0 of the base was replaced by torch 2.9.9, by culprit" in text
    assert "culprit 3.0 wants torch==2.9.9" in text


@pytest.mark.parametrize("name", ["torch/v.py", "torch/added.py"])
def test_a_file_in_torch_names_whose_it_is(
    site: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    _install(site, "culprit", "3.0", files={name: b"2"})
    code, text = verify(capsys)
    assert code == image_build.EXIT_REPLACED
    assert "culprit 3.0 wrote into the torch of the base" in text
    assert str(site / name) in text
    assert all(line.startswith(image_build.MARKER) for line in text.splitlines())


def test_a_file_that_nobody_lists_is_still_found(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site / "torch/v.py").unlink()
    code, text = verify(capsys)
    assert code == image_build.EXIT_REPLACED
    assert "a package that lists no files wrote into the torch of the base" in text


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
