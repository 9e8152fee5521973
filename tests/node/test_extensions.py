"""Stale locks of torch's extension builds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from clusterlm.node.extensions import (
    STALE_S,
    WAITS,
    YOUNG_S,
    ownerless_locks,
    prepare_extensions,
)
from clusterlm.train.build_lock import OLD_S, lock_words

TAKES = "import os, sys, time; os.open(sys.argv[1], os.O_CREAT | os.O_EXCL); time.sleep(60)"


def lock_in(root: Path) -> Path:
    build = root / "py311_cpu" / "shm_comm"
    build.mkdir(parents=True)
    return build / "lock"


def test_a_lock_goes_with_the_process_that_holds_it(tmp_path: Path) -> None:
    lock = lock_in(tmp_path)
    builder = subprocess.Popen([sys.executable, "-c", TAKES, str(lock)])
    while not lock.exists():
        time.sleep(0.01)
    later = time.time() + YOUNG_S + 1
    prepare_extensions(tmp_path, now=later)
    assert lock.exists()
    # a rank that dies while it compiles
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    prepare_extensions(tmp_path, now=time.time())
    assert lock.exists(), "it may be of a process that has just begun"
    prepare_extensions(tmp_path, now=later)
    assert not lock.exists()


def test_where_no_process_can_be_seen_only_age_counts(tmp_path: Path) -> None:
    lock, proc = lock_in(tmp_path / "root"), tmp_path / "no_proc"
    lock.touch()
    prepare_extensions(tmp_path / "root", now=time.time() + STALE_S - 60, proc=proc)
    assert lock.exists()
    prepare_extensions(tmp_path / "root", now=time.time() + STALE_S + 1, proc=proc)
    assert not lock.exists()


def test_a_rank_that_waits_for_an_older_lock_without_a_holder_says_so(tmp_path: Path) -> None:
    lock = lock_in(tmp_path)
    lock.touch()
    made = lock.stat().st_mtime
    words = lock_words(tmp_path, since=made + 10, now=made + 11 + OLD_S)
    assert words is not None
    assert words.startswith(f"{WAITS} that no process of this node makes: {lock}")
    assert words.endswith(f"rm {lock}")
    # too early to say; and a lock that came after us is somebody's on another node
    assert lock_words(tmp_path, since=made + 10, now=made + 20) is None
    assert lock_words(tmp_path, since=made - 10, now=made + 11 + OLD_S) is None
    assert lock.exists()
    assert [path for path, _ in ownerless_locks(tmp_path, now=made + 10)] == [lock]


def test_a_folder_that_cannot_be_made_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert prepare_extensions(tmp_path / "file" / "below") == tmp_path / "file" / "below"


def test_the_folder_is_private(tmp_path: Path) -> None:
    folder = prepare_extensions(tmp_path / "new")
    assert os.stat(folder).st_mode & 0o077 == 0
