"""A folder that is filled aside and published whole, so that nobody ever sees half of one.

A folder beside the final one is filled and renamed; what is written last in it says that it is
whole. Several may fill the same at once: the first one published stays, the others throw theirs
away. What a dead writer left is found by the next: on its own host a lock tells that it is dead, on
another (where locks may not be seen) an age of a day.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STALE_AFTER_S = 24 * 3600.0

WRITER = ".writer"
_ASIDE = "building"


class Aside:
    """A folder in the making, with a lock that ends with this process, however it ends."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root.with_name(f".{root.name}.{uuid.uuid4().hex[:12]}.{_ASIDE}")
        root.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir()
        self._lock = _lock_as_writer(self.folder / WRITER)

    def publish(self, is_whole: Callable[[Path], bool]) -> None:
        """Put the folder in its place, unless another writer was first."""
        with _locked(self.root.parent):
            if is_whole(self.root):
                self.discard()
                return
            if self.root.exists():
                # damaged: moved out of the way first, since a folder is not renamed over another
                trash = self.folder.with_name(f"{self.folder.name}.trash.{_ASIDE}")
                os.rename(self.root, trash)
                shutil.rmtree(trash, ignore_errors=True)
            (self.folder / WRITER).unlink()
            os.rename(self.folder, self.root)
            _flush_folder(self.root.parent)
        self.leave()

    def discard(self) -> None:
        """Throw it away."""
        self.leave()
        shutil.rmtree(self.folder, ignore_errors=True)

    def leave(self) -> None:
        """Let go of the lock; what lies there is a dead writer's from now on."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    _lock: int | None


def dead_folders(parent: Path, *, now: float) -> list[Path]:
    """What dead writers left in `parent`, oldest name first."""
    return [folder for folder in sorted(parent.glob(f".*.{_ASIDE}")) if _is_dead(folder, now)]


def remove_dead(
    parent: Path, *, now: float | None = None, but_for: Callable[[Path], bool] | None = None
) -> None:
    """Remove what dead writers left in `parent`.

    Args:
        parent: where they wrote.
        now: unix time.
        but_for: says of a place whether what was meant for it is still of use; a day at most.
    """
    now = time.time() if now is None else now
    for folder in dead_folders(parent, now=now):
        meant_for = parent / folder.name[1:].partition(".")[0]
        is_fresh = now - folder.stat().st_mtime < STALE_AFTER_S
        if not (but_for is not None and is_fresh and but_for(meant_for)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_dead(folder: Path, now: float) -> bool:
    with suppress(OSError):
        writer = folder / WRITER
        if writer.is_file() and writer.read_text(encoding="utf-8") == socket.gethostname():
            return _is_unlocked(writer)
        newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
        return now - newest > STALE_AFTER_S
    return False


def _is_unlocked(path: Path) -> bool:
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(handle)


def _lock_as_writer(path: Path) -> int:
    aside = path.with_suffix(".new")
    handle = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    # where the filesystem has no locks, the age decides
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(handle, socket.gethostname().encode())
    # it shows up under its name only once it is locked
    os.rename(aside, path)
    return handle


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One publisher at a time; where there are no locks, two in one instant is a risk taken."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _flush_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        # some network filesystems refuse it for a folder
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
