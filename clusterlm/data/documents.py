"""What a chunk of a source becomes: rows of documents and their tokens, the same for every kind.

    tokens      of all documents of the chunk, one behind the other
    documents   one row each (DOCUMENT); their starts follow from the lengths
    trained     conversations only: 1 where a token is trained
    codes       conversations with role weights only: which weight of the source's table

The result depends on the chunk alone, so any worker, node or engine gives the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

TokenType = type[np.unsignedinteger[Any]]
TokenArray = npt.NDArray[np.unsignedinteger[Any]]
Ids = npt.NDArray[np.uint32]
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint8]
Documents = npt.NDArray[np.void]

DOCUMENT = np.dtype(
    [
        # tokens, and how many of them are trained (conversations)
        ("length", "<u4"),
        ("trained", "<u4"),
        # xxh3_128 of the content: dedup and split go by it
        ("digest", "<u8", 2),
        # where the record stands: bytes in a file of lines, else the number of the record
        ("offset", "<u8"),
        # place of its file among the files of the source
        ("file", "<u4"),
        # place of its domain in the chunk's list; NO_DOMAIN for none
        ("domain", "<u2"),
        # PIECE_*: a long text comes in several rows
        ("flags", "<u2"),
    ]
)
NO_DOMAIN = 0xFFFF
CONTINUES = 1
"""Flag: this row goes on with the document of the row before."""


class Problem(NamedTuple):
    """A record that is left out, or stops the run.

    Attributes:
        file: place of its file among the files of the source.
        offset: as in DOCUMENT.
        reason: a key of REASONS in `summary.py`, to be counted by.
        detail: what is wrong, in words.
    """

    file: int
    offset: int
    reason: str
    detail: str


@dataclass
class EncodedChunk:
    """The documents of one chunk.

    Attributes:
        domains: what DOCUMENT.domain counts in.
        num_records: records read, also those left out.
        counts: of what is to be told besides (NOTES in `summary.py`).
        dropped: records that were left out, each with its reason.
        error: the first record that is to stop the run; nothing behind it was read.
    """

    tokens: TokenArray
    documents: Documents
    trained: Mask | None = None
    codes: Codes | None = None
    domains: list[str] = field(default_factory=list)
    num_records: int = 0
    num_bytes: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    dropped: list[Problem] = field(default_factory=list)
    error: Problem | None = None


def token_dtype(vocab_size: int) -> TokenType:
    """The smallest type that holds every id."""
    return np.uint16 if vocab_size <= 65536 else np.uint32
