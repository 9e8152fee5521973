"""A folder that a command fills aside and then names: whole, or not there.

Two calls may fill the same one at once: each has its own aside, and the first that is done gets the
name. What a killed call left goes with the next one: its lock is free.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clusterlm.errors import WeightsError

WRITER = ".writer"
STALE_AFTER_S = 24 * 3600.0
"""Where the file system has no locks, age decides."""
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def filled_aside(folder: Path, doing: str) -> Iterator[Path]:
    """Give a new folder beside `folder`; it gets that name when the block ends well.

    Args:
        folder: absent, or empty.
        doing: "merging"; part of the name aside.

    Raises:
        WeightsError: the disk is full, or another was first; there is nothing left aside.
    """
    folder = folder.absolute()
    prefix = f".{folder.name}.{doing}-"
    aside = folder.with_name(f"{prefix}{uuid.uuid4().hex[:12]}")
    lock = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_dead(folder.parent, prefix)
        aside.mkdir()
        lock = _locked(aside / WRITER)
        yield aside
        (aside / WRITER).unlink()
        _rename(aside, folder)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise WeightsError(
            f"{folder}: No space left on device: {room_at(folder)} free; nothing was kept; make "
            "room there, or name a folder on another disk"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def refuse_used(folder: Path) -> None:
    """Raise unless the folder is absent or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WeightsError(f"{folder} exists already; name another folder")


def room_at(folder: Path) -> str:
    """Free bytes where `folder` is to be, for people: `12 MiB`."""
    place = next(parent for parent in folder.absolute().parents if parent.is_dir())
    return sized(shutil.disk_usage(place).free)


def sized(num_bytes: float) -> str:
    """For people: `12 MiB`, `3.4 GiB`."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:,.0f} MiB"


def _rename(aside: Path, folder: Path) -> None:
    try:
        # over an empty folder, too; never over another one
        os.rename(aside, folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise WeightsError(f"{folder} came to be meanwhile; name another folder") from error
        raise


def _remove_dead(parent: Path, prefix: str) -> None:
    for folder in parent.iterdir():
        if folder.name.startswith(prefix) and _is_dead(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_dead(folder: Path) -> bool:
    with suppress(OSError):
        if time.time() - folder.stat().st_mtime > STALE_AFTER_S:
            return True
        os.close(_locked(folder / WRITER, is_own=False))
        return True
    return False


def _locked(path: Path, *, is_own: bool = True) -> int:
    handle = os.open(path, os.O_RDWR | (os.O_CREAT if is_own else 0), 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # no locks here: whoever made it goes on without
        if not is_own:
            os.close(handle)
            raise
    return handle
