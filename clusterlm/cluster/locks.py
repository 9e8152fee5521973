"""One at a time, on all machines that share a folder; freed by the kernel however a holder ends."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_NOT_HERE = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def alone(path: Path, *, waits: Callable[[], None] | None = None) -> Iterator[int]:
    """Hold the lock of a file, for as long as this process or one that inherits it lives.

    Args:
        path: made when it is absent.
        waits: called once when another holds it, before waiting.

    Yields:
        The descriptor, for a child that is to hold the lock too.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(fd, waits)
        yield fd
    finally:
        os.close(fd)


def _lock(fd: int, waits: Callable[[], None] | None) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if waits:
            waits()
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:
        # some shared file systems have no locks (Lustre mounted without -o flock). What is kept
        # here by a lock is kept a second time by the job's own guard.
        if error.errno not in _NOT_HERE:
            raise
