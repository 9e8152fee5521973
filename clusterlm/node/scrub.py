"""Secrets blacked out in a log while it is written: `env` or `set -x` in a job prints them all.

The log's writer is the job itself, with the file as its output: no pipe of ours stands between,
which would cost speed and lose the last words of a killed rank. So the file is read again as it
grows, and what is secret is overwritten in place, by as many `*`: no byte moves, so neither who
follows the log nor the writer, which appends, notices.
"""

from __future__ import annotations

import os
from pathlib import Path

from clusterlm.node.redact import Redactor

CHUNK = 1 << 20
CATCH_UP = 64
"""Chunks read at one look: a rank that prints gigabytes must not keep its parent from its work."""


class Scrubber:
    """One log, from an offset on."""

    def __init__(self, log: Path, redactor: Redactor, offset: int = 0) -> None:
        self._log, self._redactor, self._offset = log, redactor, offset

    def look(self, *, to_the_end: bool = False) -> None:
        """Black out what is new. Never raises: a full disk or a lost log is told by others.

        Args:
            to_the_end: the writer has ended; however much there is, look at all of it.
        """
        if not self._redactor:
            return
        try:
            fd = os.open(self._log, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return
        try:
            chunks = 0
            while self._look_at_a_chunk(fd) and (to_the_end or chunks < CATCH_UP):
                chunks += 1
        except OSError:
            return
        finally:
            os.close(fd)

    def _look_at_a_chunk(self, fd: int) -> bool:
        """Whether there may be more."""
        # half a secret may have been written at the last look
        start = max(0, self._offset - self._redactor.longest + 1)
        data = os.pread(fd, CHUNK + self._redactor.longest, start)
        for begin, end in self._redactor.places(data):
            os.pwrite(fd, b"*" * (end - begin), start + begin)
        self._offset = max(self._offset, start + len(data))
        return len(data) == CHUNK + self._redactor.longest
