"""Cutting a long text at places where its pieces give the same tokens as the whole.

A text of 100 MB encoded at once takes 10 GB of memory and one core. There are three kinds of place;
which of them are safe for a tokenizer, and why, is in `cut_rules.py`:

    spaces     before a single space between letters or digits        `mat| on`
    newlines   behind a newline between something visible and a letter  `mat.|The`
    commas     before a full stop or comma behind an ideograph        `大|。`

Places are told by bytes, so that a file need not be decoded to find them, and never part a
character.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from clusterlm.data.tokens.engines import Engine

PIECE_BYTES = 1 << 14
"""A text up to this size is never cut; a longer one about every so many bytes. Fast engines do not
care; those that merge a whole text at once take two to four times as long for 1 MB of it."""

_CHECK_BYTES = 512
_STRETCH_BYTES = 1 << 12
_CONTEXT_BYTES = 4

# no white space begins with these bytes; \xe1 \xe2 \xe3 have U+1680, U+2003, U+3000 and more
LETTER = (
    rb"(?:[A-Za-z0-9]|[\xc3-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]"
    rb"|[\xe4-\xec][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf])"
)
# with the marks of U+2010 to 2027, and the full stops and commas of Chinese and Japanese
_VISIBLE = rb"(?:[!-~]|" + LETTER + rb"|\xe2\x80[\x90-\xa7]|\xe3\x80[\x81\x82]|\xef\xbc[\x81-\x9f])"
# U+5000 to 9F7F and U+3041 to 308F: letters in every version of Unicode
_IDEOGRAPH = (
    rb"(?:[\xe5-\xe8][\x80-\xbf]{2}|\xe9[\x80-\xbd][\x80-\xbf]"
    rb"|\xe3\x81[\x81-\xbf]|\xe3\x82[\x80-\x8f])"
)
COMMA = rb"(?:\xe3\x80[\x81\x82]|\xef\xbc\x8c)"

_SPACES = re.compile(LETTER + rb"(?= " + LETTER + rb")")
_NEWLINES = re.compile(_VISIBLE + rb"\n(?=" + LETTER + rb")")
_COMMAS = re.compile(_IDEOGRAPH + rb"(?=" + COMMA + rb")")


class Buffer(Protocol):
    """Bytes in memory, or a mapped file."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice, /) -> bytes: ...


@dataclass(frozen=True)
class Cutter:
    """Cuts the texts of one tokenizer; small, and the same in every process.

    Attributes:
        spaces, newlines, commas: which of the rules hold; the first that finds a place is used.
        drops_space: a piece behind a cut is encoded without the space that it begins with.
    """

    spaces: bool = False
    newlines: bool = False
    commas: bool = False
    drops_space: bool = False

    def next_cut(self, buffer: Buffer, offset: int) -> int:
        """The first good place to cut at or behind byte `offset`; the end when there is none.

        Never falls as `offset` grows, so that two workers who look from both sides agree.
        """
        size, places = len(buffer), self._places()
        while offset < size:
            # stretches lie on a fixed grid, whatever the offset
            end = (offset // _STRETCH_BYTES + 1) * _STRETCH_BYTES
            low = max(0, offset - _CONTEXT_BYTES)
            window = buffer[low : end + _CONTEXT_BYTES]
            for place in places:
                for match in place.finditer(window):
                    if offset <= low + match.end() < end:
                        return low + match.end()
            offset = end
        return size

    def cut_text(
        self, data: bytes, *, is_start: bool = True, piece_bytes: int | None = None
    ) -> Iterator[bytes]:
        """The pieces of `data` to be encoded, in order; one piece when it is not long.

        Args:
            data: a text, or a part of one between two places that `next_cut` gave.
            is_start: it is the beginning of its text.
            piece_bytes: about how long a piece is.
        """
        step = piece_bytes or PIECE_BYTES
        start = 0
        while start < len(data):
            end = self.next_cut(data, (start // step + 1) * step)
            # every cut stands before its space, so there is exactly one
            is_bare = self.drops_space and (start > 0 or not is_start)
            yield data[start + is_bare : end]
            start = end

    def _places(self) -> list[re.Pattern[bytes]]:
        rules = ((self.spaces, _SPACES), (self.newlines, _NEWLINES), (self.commas, _COMMAS))
        return [place for holds, place in rules if holds]


def check_cuts(cutter: Cutter, engine: Engine, texts: Iterable[str]) -> bool:
    """Whether `texts`, cut every 512 bytes, give the ids that they give uncut."""
    for text in texts:
        pieces = cutter.cut_text(text.encode(), piece_bytes=_CHECK_BYTES)
        whole, _ = engine.encode([text])
        cut, _ = engine.encode([piece.decode() for piece in pieces])
        if not np.array_equal(whole, cut):
            return False
    return True
