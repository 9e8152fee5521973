"""Hashes of every run of `width` tokens: shingles of near duplicates, n-grams of contamination.

A window is hashed over the whole stream at once: two windows of length a and b, one behind the
other, give that of length a + b, so 8 tokens take three steps. About 9 ns a token. No window
crosses documents. A document shorter than a window is one window, all of it; that of a document
without tokens is absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from clusterlm.data.dedup import distinct
from clusterlm.data.order import Keys, mix
from clusterlm.data.store.documents import Mask, Numbers, TokenArray

BASE = 0xD1342543DE82EF95
"""What a hash is multiplied by for each token that follows."""
STRETCH = 1 << 16
"""Tokens that are worked on at once: the arrays stay in the second level cache."""
MAX_ROWS = 1024
"""Documents that are worked on at once."""


class Windows(NamedTuple):
    """The windows of some documents.

    Attributes:
        rows: the documents, ascending and each once; one of more than STRETCH tokens comes in
            several of these, each with a part of its windows.
        starts: where the first window of each begins in the stream.
        hashes: those of the first document, then of the second, ...
        counts: how many each has.
    """

    rows: Numbers
    starts: Numbers
    hashes: Keys
    counts: Numbers


def windows_of(
    tokens: TokenArray, starts: Numbers, lengths: Numbers, width: int
) -> Iterator[Windows]:
    """The windows of all documents, some documents at a time.

    Args:
        tokens: the stream that the documents lie in.
        starts: of each document.
        lengths: of each document.
        width: tokens in a window.
    """
    # columns of unsigned numbers would wrap around
    starts, lengths = starts.astype(np.int64), lengths.astype(np.int64)
    rows, starts, lengths = _cut(starts, lengths, width)
    behind = np.cumsum(lengths)
    first = 0
    while first < len(rows):
        limit = behind[first] - lengths[first] + max(STRETCH, int(lengths[first]))
        stop = min(int(np.searchsorted(behind, limit, side="right")), first + MAX_ROWS)
        here = slice(first, stop)
        flat = _gather(tokens, starts[here], lengths[here])
        yield Windows(rows[here], starts[here], *_windows(flat, lengths[here], width))
        first = stop


def shingles_of(tokens: TokenArray, width: int) -> Keys:
    """The hashes of one document's windows, ascending and each once."""
    if len(tokens) >= width:
        return distinct(hash_windows(tokens, width))
    return _windows(tokens, np.array([len(tokens)]), width)[0]


def hash_windows(tokens: TokenArray, width: int) -> Keys:
    """The hash of tokens[i : i + width] for each i that there is one for."""
    if len(tokens) < width:
        return np.empty(0, dtype=np.uint64)
    # part: hashes of 1, 2, 4, ... tokens; whole: of as many as the lower bits of `width` say
    part = whole = tokens.astype(np.uint64)
    length, done = 1, 0
    while True:
        if width & length:
            whole = _join(part, length, whole, done) if done else part
            done += length
        if done == width:
            return _salted(whole, width)
        part = _join(part, length, part, length)
        length *= 2


def _join(left: Keys, left_length: int, right: Keys, right_length: int) -> Keys:
    """The hashes of windows that are each a left one and the right one behind it."""
    count = min(len(left), len(right) - left_length)
    joined = left[:count] * np.uint64(pow(BASE, right_length, 1 << 64))
    joined += right[left_length : left_length + count]
    return joined


def _salted(sums: Keys, width: int) -> Keys:
    # with the width, else [0, 7] would be [7]
    return mix(sums + np.uint64(pow(BASE, width, 1 << 64)))


def _cut(starts: Numbers, lengths: Numbers, width: int) -> tuple[Numbers, Numbers, Numbers]:
    """Rows, starts and lengths, with long documents in parts that overlap by a window less one."""
    step = max(STRETCH, 2 * width)
    parts = np.maximum(1, -(-(lengths - width + 1) // step))
    rows = np.repeat(np.arange(len(starts), dtype=np.int64), parts)
    if len(rows) == len(starts):
        return rows, starts, lengths
    number = np.arange(len(rows)) - np.repeat(np.cumsum(parts) - parts, parts)
    begins = number * step
    ends = np.minimum(begins + step + width - 1, lengths[rows])
    return rows, starts[rows] + begins, ends - begins


def _gather(tokens: TokenArray, starts: Numbers, lengths: Numbers) -> TokenArray:
    if (starts[1:] == starts[:-1] + lengths[:-1]).all():
        return tokens[int(starts[0]) : int(starts[-1] + lengths[-1])]
    ends = starts + lengths
    pieces = zip(starts.tolist(), ends.tolist(), strict=True)
    return np.concatenate([tokens[start:end] for start, end in pieces])


def _windows(flat: TokenArray, lengths: Numbers, width: int) -> tuple[Keys, Numbers]:
    """Hashes and counts of documents that fill `flat`."""
    hashes = np.empty(len(flat), dtype=np.uint64)
    inner = hash_windows(flat, width)
    hashes[: len(inner)] = inner
    ends = np.cumsum(lengths)
    taken = _inside(len(flat), lengths, ends, width)
    short = (lengths < width) & (lengths > 0)
    if short.any():
        firsts = (ends - lengths)[short]
        hashes[firsts] = _hash_short(flat, firsts, lengths[short])
        taken[firsts] = True
    counts = np.maximum(lengths - width + 1, np.minimum(lengths, 1))
    return hashes[taken], counts


def _inside(count: int, lengths: Numbers, ends: Numbers, width: int) -> Mask:
    """True where a window begins that ends within its document."""
    taken = np.ones(count, dtype=np.bool_)
    if width > 1:
        last = ends[:, None] - np.arange(1, width)
        # [ends - lengths] is where a shorter document begins
        taken[np.maximum(last, (ends - lengths)[:, None])[lengths > 0].ravel()] = False
    return taken


def _hash_short(flat: TokenArray, firsts: Numbers, lengths: Numbers) -> Keys:
    """The hash of each whole document, of at least one token."""
    sums = np.zeros(len(firsts), dtype=np.uint64)
    salts = np.ones(len(firsts), dtype=np.uint64)
    for place in range(int(lengths.max())):
        has = lengths > place
        sums[has] = sums[has] * np.uint64(BASE) + flat[firsts[has] + place]
        salts[has] *= np.uint64(BASE)
    return mix(sums + salts)
