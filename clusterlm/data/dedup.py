"""Exact duplicates: of documents with the same content, the first is kept.

The digest (xxh3_128) also decides on which side of the validation a document falls and which share
of a source is taken, so it is made of the content alone. A long text counts by the digests of its
pieces. All documents are compared at once: about 20 bytes of memory each, next to the digests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

from clusterlm.data.order import Keys
from clusterlm.data.store.documents import Mask, Numbers

Scalar = TypeVar("Scalar", bound=np.generic)


def digest_of(content: bytes) -> bytes:
    """16 bytes that stand for a document of one piece."""
    return bytes(xxhash.xxh3_128_digest(content))


def digest_of_pieces(digests: Sequence[bytes]) -> bytes:
    """16 bytes that stand for a document of these pieces; of one piece, that of the piece."""
    return digests[0] if len(digests) == 1 else digest_of(b"".join(digests))


def first_occurrences(digests: Keys) -> Numbers:
    """The row of the first document with the same digest, for each document.

    A document is a repeat where this is not its own row: `first_occurrences(d) != arange(len(d))`.

    Args:
        digests: of shape (documents, 2), in the order in which documents are preferred.
    """
    firsts = np.arange(len(digests), dtype=np.int64)
    rows = repeated_rows(digests[:, 0])
    # by both halves; the sort is stable, so still by row where both are the same
    rows = rows[np.lexsort((digests[rows, 1], digests[rows, 0]))]
    begins = begins_of(digests[rows, 0]) | begins_of(digests[rows, 1])
    firsts[rows] = rows[begins][np.cumsum(begins) - 1]
    return firsts


def repeated_rows(keys: Keys) -> Numbers:
    """The rows of keys that occur more than once, by key and then by row."""
    # not a stable sort, which takes five times as long: few rows are left to be put in order
    order: Numbers = np.argsort(keys)
    ordered = keys[order]
    same = ordered[1:] == ordered[:-1]
    shared = np.zeros(len(keys), dtype=np.bool_)
    shared[1:] = same
    shared[:-1] |= same
    rows: Numbers = order[shared]
    by_key: Numbers = np.lexsort((rows, keys[rows]))
    return rows[by_key]


def begins_of(keys: npt.NDArray[Scalar]) -> Mask:
    """Where a run of equal keys begins."""
    begins = np.ones(len(keys), dtype=np.bool_)
    begins[1:] = keys[1:] != keys[:-1]
    return begins


def distinct(keys: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """The keys, ascending and each once; np.unique takes ten times as long from numpy 2.3 on."""
    ordered = np.sort(keys)
    return ordered[begins_of(ordered)]
