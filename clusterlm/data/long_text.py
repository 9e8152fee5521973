"""Where a long text may be cut so that its pieces give the same tokens as the whole.

A text of 100 MB encoded at once takes 10 GB of memory and one core. Cuts are made before a single
space that stands between two letters or digits; in a stretch of 64 KiB without one, behind a
newline that stands between a visible character and a letter or digit. Over 1.4 million such cuts
changed no id for the byte-level BPE styles of GPT-2, Llama-3, Qwen, o200k and DeepSeek; a tokenizer
that marks the start of a text (Llama-2 style) gains one token a cut. `encode.py` looks at every cut
and counts those that changed ids. Letters are ASCII, Cyrillic and CJK, told by their first byte;
another script is cut less often.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

PIECE_BYTES = 1 << 20
"""A text up to this size is never cut; a longer one about every so many bytes."""

SEAM_BYTES = 256
"""How far around a cut ids are compared."""

_STRETCH_BYTES = 1 << 16
_CONTEXT_BYTES = 4

_LETTER = rb"(?:[A-Za-z0-9]|[\xd0\xd1][\x80-\xbf]|[\xe4-\xe9][\x80-\xbf]{2})"
# the end of a visible character; \xe3\x80\x82 is the ideographic full stop
_VISIBLE = rb"(?:[!-~]|[\xd0\xd1][\x80-\xbf]|[\xe4-\xe9][\x80-\xbf]{2}|\xe3\x80\x82)"
_SPACE = re.compile(_LETTER + rb"(?= " + _LETTER + rb")")
_NEWLINE = re.compile(_VISIBLE + rb"\n(?=" + _LETTER + rb")")


class Buffer(Protocol):
    """Bytes in memory, or a mapped file."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice, /) -> bytes: ...


def next_cut(buffer: Buffer, offset: int) -> int:
    """The first good place to cut at or behind byte `offset`; the end when there is none.

    Never falls as `offset` grows, so that two workers who look from both sides agree.
    """
    size = len(buffer)
    while offset < size:
        # stretches lie on a fixed grid, whatever the offset
        end = (offset // _STRETCH_BYTES + 1) * _STRETCH_BYTES
        low = max(0, offset - _CONTEXT_BYTES)
        window = buffer[low : end + _CONTEXT_BYTES]
        for place in (_SPACE, _NEWLINE):
            for match in place.finditer(window):
                if offset <= low + match.end() < end:
                    return low + match.end()
        offset = end
    return size


def cut_text(data: bytes) -> Iterator[bytes]:
    """The pieces of `data`, in order; one piece when it is not long."""
    start = 0
    while start < len(data):
        # at multiples of PIECE_BYTES, so that byte ranges of a file give the same pieces
        end = next_cut(data, (start // PIECE_BYTES + 1) * PIECE_BYTES)
        yield data[start:end]
        start = end


class Cutter:
    next_cut = staticmethod(next_cut)
    cut_text = staticmethod(cut_text)


def cut_rule(path):
    return Cutter()
