"""Bytes that come in pieces, as lines."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, cast

LONGEST = 64 * 2**20
"""A line that never ends is cut: an answer is some megabytes at most."""


class LineSink(io.RawIOBase):
    """A file to write to whose lines go to a function as they become whole."""

    def __init__(self, each: Callable[[bytes], None]) -> None:
        self._each, self._rest = each, bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(cast(bytes, data))
        self._rest += piece
        if b"\n" in piece:
            *whole, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
            for line in whole:
                self._each(line)
        elif len(self._rest) > LONGEST:
            self._rest.clear()
        return len(piece)

    def finish(self) -> None:
        """Give what stands after the last end of a line."""
        if self._rest:
            rest, self._rest = bytes(self._rest), bytearray()
            self._each(rest)

    def as_file(self) -> BinaryIO:
        """For an argument of that type."""
        return cast(BinaryIO, self)
