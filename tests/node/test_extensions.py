"""Stale locks of torch's extension builds."""

from __future__ import annotations

import os
import time
from pathlib import Path

from clusterlm.node.extensions import STALE_S, prepare_extensions


def test_an_old_lock_goes_and_a_new_one_stays(tmp_path: Path) -> None:
    build = tmp_path / "root" / "py311_cpu" / "shm_comm"
    build.mkdir(parents=True)
    (build / "lock").touch()
    prepare_extensions(tmp_path / "root")
    assert (build / "lock").exists()
    prepare_extensions(tmp_path / "root", now=time.time() + STALE_S + 1)
    assert not (build / "lock").exists()


def test_a_folder_that_cannot_be_made_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert prepare_extensions(tmp_path / "file" / "below") == tmp_path / "file" / "below"


def test_the_folder_is_private(tmp_path: Path) -> None:
    folder = prepare_extensions(tmp_path / "new")
    assert os.stat(folder).st_mode & 0o077 == 0
