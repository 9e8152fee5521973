"""Reads a growing file in increments: by byte offset, in bounded memory, whatever befalls it."""

from __future__ import annotations

from pathlib import Path

CHUNK = 256 * 1024
LONGEST_LINE = 16 * 1024
HOLD_S = 2.0
"""An unfinished last line is shown after so long."""
CUT = b" ... [cut]"
USUAL_LINE = 400


class Tail:
    """The lines of one file that are new since the last look."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.is_at_end = False
        """The last look read all there was."""
        self._partial = b""
        self._partial_since: float | None = None
        self.is_skipping = False
        """The rest of a line that was too long is left out."""

    @property
    def whole_offset(self) -> int:
        """Offset behind the last whole line."""
        return self.offset - len(self._partial)

    @property
    def has_shown_all(self) -> bool:
        """Nothing is left to read, nor an unfinished line to be shown."""
        return self.is_at_end and not self._partial

    def read(self, now: float, *, is_last: bool = False) -> list[bytes]:
        """Whole lines from the next `CHUNK` bytes, and an unfinished one when it is old.

        A file that has shrunk is read from its beginning; one that is gone gives nothing.

        Args:
            now: by any clock that goes forward.
            is_last: nothing more will come: give the unfinished line too.
        """
        data = self._next_bytes()
        self.is_at_end = len(data) < CHUNK
        lines = self._split(data)
        if not self._partial:
            return lines
        self._partial_since = now if self._partial_since is None else self._partial_since
        if now - self._partial_since >= HOLD_S or (is_last and self.is_at_end):
            lines.append(self._partial)
            self._partial, self._partial_since = b"", None
        return lines

    def _next_bytes(self) -> bytes:
        try:
            with self.path.open("rb") as handle:
                if handle.seek(0, 2) < self.offset:
                    self.offset, self._partial, self.is_skipping = 0, b"", False
                handle.seek(self.offset)
                data = handle.read(CHUNK)
        except OSError:
            return b""
        self.offset += len(data)
        return data

    def _split(self, data: bytes) -> list[bytes]:
        *whole, rest = (self._partial + data).split(b"\n")
        if whole:
            self._partial_since = None
            # the end of a line whose beginning was shown
            if self.is_skipping:
                whole, self.is_skipping = whole[1:], False
        lines = [_cut(line) for line in whole]
        # a progress bar rewrites one line for ever: only what stands after the last return counts
        rest = _last_state(rest)
        if self.is_skipping:
            rest = b""
        elif len(rest) > LONGEST_LINE:
            lines.append(_cut(rest))
            rest, self.is_skipping = b"", True
        self._partial = rest
        return lines


def _last_state(line: bytes) -> bytes:
    # returns at the very end: the next state has not been written yet
    return line[line.rstrip(b"\r").rfind(b"\r") + 1 :]


def _cut(line: bytes) -> bytes:
    shown = _last_state(line)
    return shown if len(shown) <= LONGEST_LINE else shown[:LONGEST_LINE] + CUT


def last_lines(path: Path, count: int, *, unfinished: bool = True) -> tuple[list[bytes], int]:
    """The last `count` lines and the offset behind them; reads the end of the file only.

    Args:
        path: the file; one that is gone has no lines.
        count: how many.
        unfinished: give the unfinished last line too, else the offset stays before it.
    """
    size = _size(path)
    start = max(0, size - max(count * USUAL_LINE, 4 * LONGEST_LINE))
    tail = Tail(path, start)
    lines: list[bytes] = []
    # a file that grows faster than we read must not keep us
    while not tail.is_at_end and tail.offset < size + CHUNK:
        lines = (lines + tail.read(0.0))[-count - 1 :]
    offset = tail.whole_offset
    if unfinished:
        lines += tail.read(0.0, is_last=True)
        offset = tail.offset
    # the first one is only the end of a line when we began in the middle of the file
    if start and len(lines) <= count:
        lines = lines[1:]
    return (lines[-count:] if count > 0 else []), offset


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
