"""The check inside the image: one line when it is right, one line and a command when it is not."""

from __future__ import annotations

import argparse
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import clusterlm
from clusterlm.node import image_build, image_check
from clusterlm.node.codes import EXIT_IMAGE
from clusterlm.node.image_check import Seen, WrongImage, refuse_wrong_image

VERSION = clusterlm.__version__
DIGEST = "d" * 64
RECIPE = "ab" * 32
TORCH = "2.5.0a0+872d972e41"
Check = Callable[..., int]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    monkeypatch.setenv("CLUSTERLM_RUN", "ru-cpt")
    monkeypatch.setattr(image_build, "RECORD", tmp_path / "image.json")
    monkeypatch.setattr(image_build, "code_digest", lambda package: DIGEST)

    def run(*options: str, record: Any = None, gpus: int = 0, **changes: Any) -> int:
        whole = {"recipe": RECIPE, "torch": TORCH, **changes}
        image_build.RECORD.write_text(json.dumps(whole) if record is None else record)
        argv = {"--version": VERSION, "--code-digest": DIGEST, "--recipe": RECIPE}
        words = [word for pair in argv.items() for word in pair]
        return image_check.main([*words, "--gpus", str(gpus), *options])

    return run


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    cuda = types.SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 8,
        nccl=types.SimpleNamespace(version=lambda: (2, 22, 3)),
    )
    version = types.SimpleNamespace(cuda="12.6")
    stub = types.SimpleNamespace(__version__=TORCH, cuda=cuda, version=version)
    monkeypatch.setitem(sys.modules, "torch", stub)  # type: ignore[arg-type]
    return stub


def test_a_right_image_is_one_line(
    check: Check, torch: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(gpus=8) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(
        f"image: clusterlm {VERSION}, torch {TORCH} of the base, CUDA 12.6, NCCL 2.22.3, 8 GPUs, "
        "Python 3."
    )
    assert out.count("\n") == 1


def test_the_data_phase_does_not_load_torch(
    check: Check, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # an import of it would raise
    monkeypatch.setitem(sys.modules, "torch", None)
    assert check("--light", gpus=8) == 0
    assert "not loaded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": "cd" * 32}, ["recipe cdcdcdcdcdcdcdcd", "asks for abababababababab"]),
        ({"torch": "2.4.0"}, [f"torch is {TORCH}", "brought 2.4.0", "PYTHONPATH"]),
        ({"record": "{"}, ["image.json cannot be read"]),
    ],
)
def test_another_image_is_refused_with_the_command_that_mends_it(
    check: Check,
    torch: types.SimpleNamespace,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    words: list[str],
) -> None:
    assert check(**changes) == EXIT_IMAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("clusterlm image: ")
    assert err.count("\n") == 1
    for word in (*words, "clusterlm build-image JOB", "clusterlm resume ru-cpt"):
        assert word in err


def test_another_torch_of_the_same_version_is_refused(
    check: Check, torch: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.__file__ = "/usr/lib/../lib/torch/__init__.py"
    assert check(torch_file="/usr/lib/torch/__init__.py") == 0
    torch.__file__ = "/home/me/torch/__init__.py"
    assert check(torch_file="/usr/lib/torch/__init__.py") == EXIT_IMAGE
    err = capsys.readouterr().err
    assert "torch is /home/me/torch/__init__.py, the base's is /usr/lib/torch/__init__.py" in err
    assert "something puts another torch before it: PYTHONPATH, a .pth file" in err


@pytest.mark.parametrize("lacking", ["cuda", "version", "__version__"])
def test_a_torch_that_lacks_something_is_one_line(
    check: Check,
    torch: types.SimpleNamespace,
    capsys: pytest.CaptureFixture[str],
    lacking: str,
) -> None:
    delattr(torch, lacking)
    assert check() == EXIT_IMAGE
    err = capsys.readouterr().err
    assert err.startswith("clusterlm image: torch ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("one\ntwo"), SystemExit(3)])
def test_whatever_goes_wrong_is_one_line(
    check: Check,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    def fails(package: Path) -> str:
        raise error

    monkeypatch.setattr(image_build, "code_digest", fails)
    assert check("--light") == EXIT_IMAGE
    err = capsys.readouterr().err
    assert err.startswith(f"clusterlm image: looking at it failed: {type(error).__name__}: ")
    assert err.count("\n") == 1


def test_a_torch_that_does_not_start_is_told_with_its_error(
    check: Check, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert check() == EXIT_IMAGE
    assert "torch does not start: ModuleNotFoundError" in capsys.readouterr().err


def test_missing_gpus_are_counted_and_the_drivers_warning_is_told(
    check: Check, torch: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.cuda.device_count = lambda: 7
    assert check(gpus=8) == EXIT_IMAGE
    assert "clusterlm image: 7 of 8 GPUs are seen on " in capsys.readouterr().err

    def warns() -> bool:
        import warnings

        warnings.warn("the driver is too old", stacklevel=1)
        return False

    torch.cuda.is_available = warns
    assert check(gpus=8) == EXIT_IMAGE
    err = capsys.readouterr().err
    assert "0 of 8 GPUs" in err
    assert "(the driver is too old)" in err


def test_an_image_without_torch_is_for_scripts_that_need_none(
    check: Check, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(torch=None) == 0
    assert "torch" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "seen", [Seen("0.0.9", DIGEST), Seen(VERSION, "f" * 64), Seen("0.0.9", "f" * 64)]
)
def test_another_clusterlm_is_refused(seen: Seen) -> None:
    asked = argparse.Namespace(version=VERSION, code_digest=DIGEST, recipe="", gpus=0)
    with pytest.raises(WrongImage, match="the run was submitted by"):
        refuse_wrong_image(asked, {}, seen)


def test_a_given_file_has_no_recipe_to_compare() -> None:
    asked = argparse.Namespace(version=VERSION, code_digest=DIGEST, recipe="", gpus=0)
    refuse_wrong_image(asked, {"recipe": RECIPE}, Seen(VERSION, DIGEST))
