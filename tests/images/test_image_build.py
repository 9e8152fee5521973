"""The steps inside an image, outside of one: what is guarded, what `verify` sees."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from clusterlm.node import image_base, image_build, image_pip, image_verify
from tests.bed.wheels import plain_wheel


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
    _install(folder, "clusterlm", "0.1.0", files={"clusterlm/cli.py": b"# ours\n"})
    monkeypatch.setattr(image_verify, "_clusterlm_package", lambda version: folder / "clusterlm")
    for top in image_build.TOPS:
        # another test may have imported the real one, and that one would be found
        monkeypatch.delitem(sys.modules, top, raising=False)
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
    assert record["torch_file"] == str(site / "torch/__init__.py")
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


@pytest.mark.parametrize(
    "name",
    ["torch/v.py", "torch/added.py", "torch/__pycache__/v.cpython-311.pyc", "torch/deep/x.so"],
)
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


@pytest.fixture
def rich_site(site: Path) -> Path:
    """A base with more that is guarded: two of them share a folder, one has no RECORD."""
    _install(site, "nvidia-nccl-cu12", "2.22", files={"nvidia/nccl/lib.so": b"nccl"})
    _install(site, "triton", "3.0", files={"triton/__init__.py": b"", "triton/a.py": b"1"})
    (site / "triton.py").unlink()
    _install(site, "flash-attn", "2.6", files={"flash_attn/__init__.py": b"1"})
    (site / "flash_attn.py").unlink()
    (site / "flash_attn-2.6.dist-info/RECORD").unlink()
    _install(site, "nvidia-ml-py", "12.0", files={"nvidia/shared.py": b""})
    image_base.record_base("a/base:1")
    return site


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("nvidia/nccl/lib.so", "nvidia-nccl-cu12"),
        ("triton/a.py", "triton"),
        ("triton/new.py", "triton"),
        ("flash_attn/__init__.py", "torch"),
    ],
)
def test_every_guarded_package_stays_as_it_was(
    rich_site: Path, capsys: pytest.CaptureFixture[str], name: str, whose: str
) -> None:
    _install(rich_site, "culprit", "3.0", files={name: b"other"})
    code, text = verify(capsys)
    assert code == image_build.EXIT_REPLACED
    assert f"culprit 3.0 wrote into the {whose} of the base" in text
    assert str(rich_site / name) in text


@pytest.mark.parametrize("name", ["nvidia/more/x.py", "functorch/__init__.py", "other/x.py"])
def test_what_the_base_does_not_have_may_be_added(
    rich_site: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    _install(rich_site, "harmless", "3.0", files={name: b"new"})
    assert verify(capsys) == (0, "")


@pytest.mark.parametrize("name", ["clusterlm/node/zz.py", "clusterlm/cli.py"])
def test_a_file_in_clusterlms_own_package_is_refused(
    site: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    _install(site, "guest", "1.0", files={name: b"guest"})
    code, text = verify(capsys)
    assert code == image_build.EXIT_REFUSED
    assert "guest 1.0 wrote into clusterlm's own package" in text
    assert str(site / name) in text


def test_what_a_step_starts_compiles_nothing_and_the_image_does_as_it_likes(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    assert image_pip._pip_env()["PYTHONDONTWRITEBYTECODE"] == "1"
    code = "import sys; print(sys.dont_write_bytecode)"
    assert image_verify._start([sys.executable, "-c", code]).stdout == "True\n"
    assert verify(capsys) == (0, "")
    assert "BYTECODE" not in (site.parent / "opt/environment").read_text()


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
