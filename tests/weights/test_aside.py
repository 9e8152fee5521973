"""A folder is there whole or not at all: two at once, kills, a full disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clusterlm.errors import WeightsError
from clusterlm.weights.aside import filled_aside

DIES = (
    "import os, sys; from pathlib import Path; from clusterlm.weights.aside import filled_aside\n"
    "with filled_aside(Path(sys.argv[1]), 'merging') as aside:\n"
    "    (aside / 'half').touch(); os.kill(os.getpid(), 9)\n"
)


def test_the_first_of_two_gets_the_name_and_neither_takes_half_of_the_other(tmp_path: Path) -> None:
    folder = tmp_path / "merged"
    with (  # noqa: PT012
        pytest.raises(WeightsError, match="came to be meanwhile"),
        filled_aside(folder, "merging") as slow,
    ):
        (slow / "half").touch()
        with filled_aside(folder, "merging") as fast:
            (fast / "whole").touch()
        (slow / "rest").touch()
    assert os.listdir(tmp_path) == ["merged"]
    assert os.listdir(folder) == ["whole"]


def test_what_a_killed_call_left_goes_with_the_next(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DIES, str(tmp_path / "merged")], check=False)
    assert len(os.listdir(tmp_path)) == 1
    with filled_aside(tmp_path / "merged", "merging") as aside:
        (aside / "whole").touch()
    assert os.listdir(tmp_path) == ["merged"]
    assert os.listdir(tmp_path / "merged") == ["whole"]


def test_a_full_disk_is_told_with_its_place(tmp_path: Path) -> None:
    with (  # noqa: PT012
        pytest.raises(WeightsError, match="merged: No space left on device: .* free"),
        filled_aside(tmp_path / "merged", "merging") as aside,
    ):
        (aside / "half").touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not os.listdir(tmp_path)


def test_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with filled_aside(Path(), "merging") as aside:
        (aside / "whole").touch()
    assert os.listdir(here) == ["whole"]
