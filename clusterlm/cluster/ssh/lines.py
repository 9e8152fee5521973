"""Bytes as they come, cut into lines of text."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable


class LineCutter:
    """Hands on every line as soon as it is whole; a carriage return ends one, too."""

    def __init__(self, each: Callable[[str], None]) -> None:
        self._each = each
        self._decode = io.IncrementalNewlineDecoder(
            codecs.getincrementaldecoder("utf-8")(errors="replace"), translate=True
        )
        self._held = ""

    def feed(self, data: bytes) -> None:
        self._cut(self._decode.decode(data))

    def close(self) -> None:
        """What stands behind the last line end is a line."""
        self._cut(self._decode.decode(b"", final=True))
        if self._held:
            self._each(self._held)
            self._held = ""

    def _cut(self, text: str) -> None:
        *whole, self._held = (self._held + text).split("\n")
        for line in whole:
            self._each(line)


def last_lines(data: bytes, count: int = 12) -> str:
    """The last lines of what was printed, set in, without what could steer a terminal."""
    text = data.decode(errors="replace").replace("\r", "")
    clean = "".join(c if c == "\n" or c.isprintable() else "?" for c in text)
    lines = [line[:500] for line in clean.split("\n") if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-count:])
