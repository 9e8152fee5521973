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
        # place of its file among the files of the chunk
        ("file", "<u4"),
        # number of its record in the chunk, those left out counted too
        ("record", "<u4"),
        # place of its domain in the chunk's list; NO_DOMAIN for none
        ("domain", "<u2"),
        # CONTINUES, CONVERSATION, BROKEN
        ("flags", "<u2"),
    ]
)
NO_DOMAIN = 0xFFFF
CONTINUES = 1
"""Flag: this row goes on with the document of the row before (a long text comes in pieces)."""
CONVERSATION = 2
"""Flag: never cut, always apart from its neighbours; its mask says what is trained."""
BROKEN = 4
"""Flag: a piece of a long text that cannot be read; the whole document is left out."""
BAD = "bad_record"
"""Reason of a record that is malformed: `data.on_bad_record` decides."""
MAX_LISTED = 50
"""Records left out that a chunk names; beyond, they are only counted."""
MAX_LISTED_BAD = 2000
MAX_DETAIL = 200
"""Characters kept of what is wrong with a record."""


class Problem(NamedTuple):
    """A record that is left out; whether a bad one stops the run is decided where it is counted.

    Attributes:
        file: place of its file among the files of the chunk.
        offset: as in DOCUMENT.
        reason: a key of REASONS in `summary.py`, to be counted by; BAD for a record that cannot be
            used at all.
        detail: what is wrong, in words.
        record: its number in the chunk.
        documents_before: how many records of the chunk before it could be used.
    """

    file: int
    offset: int
    reason: str
    detail: str
    record: int
    documents_before: int


@dataclass
class EncodedChunk:
    """The documents of one chunk.

    Attributes:
        key: of the content and of all that makes tokens of it; the same key, the same chunk.
        domains: what DOCUMENT.domain counts in.
        num_records: records read, also those left out.
        num_bytes: of source read.
        counts: of what is to be told besides (NOTES in `summary.py`).
        dropped: records that were left out, each with its reason.
    """

    key: str
    tokens: TokenArray
    documents: Documents
    trained: Mask | None = None
    codes: Codes | None = None
    domains: list[str] = field(default_factory=list)
    num_records: int = 0
    num_bytes: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    dropped: list[Problem] = field(default_factory=list)

    def leave_out(self, problem: Problem) -> None:
        """Count a record that is left out, and list the first ones."""
        self.counts[problem.reason] += 1
        # of bad ones more: which of them ends a run is known only later
        most = MAX_LISTED_BAD if problem.reason == BAD else MAX_LISTED
        if len(self.dropped) < most:
            self.dropped.append(problem._replace(detail=problem.detail[:MAX_DETAIL]))


def token_dtype(vocab_size: int) -> TokenType:
    """The smallest type that holds every id."""
    return np.uint16 if vocab_size <= 65536 else np.uint32
