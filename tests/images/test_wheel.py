"""The wheel of the running clusterlm: made from its own files, the same bytes each time."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import clusterlm
from clusterlm import __version__
from clusterlm.cluster.images.wheel import (
    WHEEL_NAME,
    build_wheel,
    code_digest,
    requirements_of,
)
from clusterlm.node import image_build

PACKAGE = Path(clusterlm.__file__).parent


def test_the_same_files_give_the_same_bytes() -> None:
    assert build_wheel() == build_wheel()


def test_pip_takes_the_wheel_and_the_copy_has_the_same_digest(tmp_path: Path) -> None:
    wheel = tmp_path / WHEEL_NAME
    wheel.write_bytes(build_wheel())
    site = tmp_path / "site"
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*argv, "--target", str(site), str(wheel)], check=True)
    assert image_build.code_digest(site / "clusterlm") == code_digest()
    code = "import clusterlm; print(clusterlm.__file__, clusterlm.__version__)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said == [str(site / "clusterlm/__init__.py"), __version__]
    assert (site / "bin/clusterlm").is_file()


def test_every_file_of_the_package_is_in_it_and_nothing_compiled(tmp_path: Path) -> None:
    wheel = tmp_path / WHEEL_NAME
    wheel.write_bytes(build_wheel())
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {p.relative_to(PACKAGE.parent).as_posix() for p in PACKAGE.rglob("*.py")}
    templates = {p.relative_to(PACKAGE.parent).as_posix() for p in PACKAGE.rglob("*.j2")}
    assert sources | templates <= names
    assert not [n for n in names if n.endswith(".pyc")]


def test_a_changed_byte_or_name_changes_the_code_digest(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    file = package / "inner/a.py"
    file.write_text("a = 1\n")
    first = image_build.code_digest(package)
    (package / "inner/a.pyc").write_bytes(b"compiled")
    (package / "inner/__pycache__").mkdir()
    # as Python names it while it writes
    (package / "inner/__pycache__/a.cpython-311.pyc.12345").write_bytes(b"half")
    assert image_build.code_digest(package) == first
    assert list(image_build.code_files(package)) == ["inner/a.py"]
    file.write_text("a = 2\n")
    changed = image_build.code_digest(package)
    file.rename(package / "inner/b.py")
    assert len({first, changed, image_build.code_digest(package)}) == 3


@pytest.mark.parametrize(
    ("extra", "name"), [(None, "pydantic"), ("train", "transformers"), ("fast", "gigatoken")]
)
def test_requirements_come_without_markers(extra: str | None, name: str) -> None:
    found = requirements_of(extra)
    assert any(line.startswith(name) for line in found)
    assert not any(";" in line for line in found)
