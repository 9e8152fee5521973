"""Exact duplicates: the first document read is kept. About 100 bytes of memory a document.

The digest (xxh3_128) also decides on which side of the validation a document falls and which share
of a source is taken, so it is made of the content alone. A long text counts by the digests of its
pieces.
"""

from __future__ import annotations

from collections.abc import Sequence

import xxhash

DIGEST_BYTES = 16


def digest_of(content: bytes) -> bytes:
    """16 bytes that stand for a document of one piece."""
    return bytes(xxhash.xxh3_128_digest(content))


def digest_of_pieces(digests: Sequence[bytes]) -> bytes:
    """16 bytes that stand for a document of these pieces; of one piece, that of the piece."""
    return digests[0] if len(digests) == 1 else digest_of(b"".join(digests))


class Duplicates:
    """The documents seen so far."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def is_new(self, digest: bytes) -> bool:
        """Whether this document was not seen before; from now on it was."""
        count = len(self._seen)
        self._seen.add(digest)
        return len(self._seen) > count
