"""Near duplicates: a document is dropped when it is near one that comes before it and is kept.

Documents are compared when all rows of one band of their signatures are the same. Of p
permutations, b bands of r rows find a pair of similarity s with 1 - (1 - s^r)^b; taken is the
largest r for which a pair at the threshold is found with 0.99 (what is further below it is then
rarely looked at), or r = 1 where no other does. For 0.8 and 128: 21 bands of 6 rows, 0.998 at 0.8,
0.28 at 0.5, 0.005 at 0.25.

The share of equal places in two signatures is their similarity but for chance. Where it is within 3
standard deviations of the threshold, the shingles themselves are counted; beyond, it decides (and
is wrong once in 700 pairs that lie just at the threshold). So 0.998 * 0.9987 of the pairs at the
threshold are found.

The order decides, not the machine: the result is that of reading one document after the other and
comparing each with those kept so far. It is reached in rounds over all documents at once. A kept
document is compared with all others in its buckets and then leaves them, so a million copies of one
text cost a million comparisons. After 64 kept documents a bucket is given up (many different texts
that begin alike, say): later members of it are found by other bands, or missed.

Memory, next to the signatures: 16 bytes a document, and 16 for each bucket that a document shares
with others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clusterlm.data.alike.signatures import Signatures
from clusterlm.data.dedup import begins_of, distinct, repeated_rows
from clusterlm.data.order import Keys, mix
from clusterlm.data.store.documents import Mask, Numbers
from clusterlm.spec.data import NearDuplicates

FOUND = 0.99
"""Least chance that a pair at the threshold is compared."""
SIGMAS = 3.0
MAX_KEPT = 64
"""Kept documents of one bucket that others are compared with."""
BATCH = 1 << 13

Similarities = npt.NDArray[np.float64]
ShinglesOf = Callable[[int], Keys]
"""The shingles of the document in a row, ascending and each once."""


@dataclass(frozen=True)
class Near:
    """What was found.

    Attributes:
        keep: False where a row is dropped.
        pairs: (dropped row, kept row it is near), one for each that is dropped, ascending.
        num_compared: pairs of signatures that were compared.
        num_counted: those of them whose shingles were counted.
    """

    keep: Mask
    pairs: Numbers
    num_compared: int
    num_counted: int


def bands_of(spec: NearDuplicates) -> tuple[int, int]:
    """How many bands, and of how many rows each."""
    for rows in range(spec.permutations, 1, -1):
        bands = spec.permutations // rows
        if 1 - (1 - spec.threshold**rows) ** bands >= FOUND:
            return bands, rows
    return spec.permutations, 1


def near_duplicates(
    signatures: Signatures,
    spec: NearDuplicates,
    *,
    rows: Numbers | None = None,
    count_shingles: Callable[[Numbers], Similarities] | None = None,
) -> Near:
    """Drop the documents that are near one kept before them.

    Args:
        signatures: one row a document.
        spec: threshold and permutations.
        rows: which rows to look at, each once, those first that are preferred; default: all, in
            their order. The others are neither dropped nor compared with.
        count_shingles: the true similarities of pairs of rows, for those that the signatures leave
            in doubt (see `similarities_of`); None lets the signatures decide.
    """
    order = np.arange(len(signatures), dtype=np.int64) if rows is None else rows
    buckets, members = _buckets_of(signatures, order, spec)
    compare = _Comparison(signatures, order, spec, count_shingles)
    near_to = _keep_first(len(order), buckets, members, compare)
    dropped = np.flatnonzero(near_to >= 0)
    pairs = np.stack([order[dropped], order[near_to[dropped]]], axis=1)
    keep = np.ones(len(signatures), dtype=np.bool_)
    keep[pairs[:, 0]] = False
    pairs = pairs[np.argsort(pairs[:, 0])]
    return Near(keep, pairs, compare.num_compared, compare.num_counted)


def similarities_of(pairs: Numbers, shingles_of: ShinglesOf) -> Similarities:
    """The true similarity (Jaccard) of each pair of rows, which any worker may count.

    Args:
        pairs: of shape (pairs, 2); those with the same first row one behind the other.
        shingles_of: reads a document; the first row of several pairs is read once.
    """
    similarities = np.empty(len(pairs), dtype=np.float64)
    last, left = -1, np.empty(0, dtype=np.uint64)
    for place, (one, other) in enumerate(pairs.tolist()):
        if one != last:
            last, left = one, shingles_of(one)
        similarities[place] = jaccard(left, shingles_of(other))
    return similarities


def jaccard(left: Keys, right: Keys) -> float:
    """What two sets have in common, of all that they have; both ascending. 1 for two empty ones."""
    total = int(begins_of(np.sort(np.concatenate([left, right]))).sum())
    return (len(left) + len(right) - total) / total if total else 1.0


def _buckets_of(
    signatures: Signatures, order: Numbers, spec: NearDuplicates
) -> tuple[Numbers, Numbers]:
    """(bucket, place in the order) of each document that shares a bucket, ascending."""
    buckets, members, num_buckets = [], [], 0
    bands, rows = bands_of(spec)
    for band in range(bands):
        keys = _keys_of(signatures, order, slice(band * rows, (band + 1) * rows))
        shared = repeated_rows(keys)
        begins = begins_of(keys[shared])
        buckets.append(np.cumsum(begins) - 1 + num_buckets)
        members.append(shared)
        num_buckets += int(begins.sum())
    return np.concatenate(buckets), np.concatenate(members)


def _keys_of(signatures: Signatures, order: Numbers, columns: slice) -> Keys:
    keys = np.empty(len(order), dtype=np.uint64)
    for here in _batches(len(order)):
        key = np.zeros(len(keys[here]), dtype=np.uint64)
        for column in signatures[order[here], columns].T:
            key = mix(key + column)
        keys[here] = key
    return keys


def _keep_first(count: int, buckets: Numbers, members: Numbers, compare: _Comparison) -> Numbers:
    """For each document the kept one that it is near, or -1."""
    near_to = np.full(count, -1, dtype=np.int64)
    num_kept = np.zeros(int(buckets[-1]) + 1 if len(buckets) else 0, dtype=np.int64)
    is_behind = np.zeros(count, dtype=np.bool_)
    while len(members):
        begins = begins_of(buckets)
        leaders = members[begins][np.cumsum(begins) - 1]
        # who is behind nobody in any of its buckets is kept: all before it were compared with it
        is_behind[members] = False
        is_behind[members[~begins]] = True
        ready = ~is_behind[leaders]
        pairs = distinct(leaders[ready & ~begins] * count + members[ready & ~begins])
        kept, others = pairs // count, pairs % count
        near = compare.are_near(kept, others)
        # the first that is kept: later ones are written before it
        near_to[others[near][::-1]] = kept[near][::-1]
        num_kept[buckets[ready & begins]] += 1
        stay = (near_to[members] < 0) & ~(ready & begins) & (num_kept[buckets] < MAX_KEPT)
        buckets, members = _shared(buckets[stay], members[stay])
    return near_to


def _shared(buckets: Numbers, members: Numbers) -> tuple[Numbers, Numbers]:
    """Without those that are alone in their bucket."""
    begins = begins_of(buckets)
    alone = begins & np.append(begins[1:], True)[: len(begins)]
    return buckets[~alone], members[~alone]


def _batches(count: int) -> Iterator[slice]:
    for first in range(0, count, BATCH):
        yield slice(first, first + BATCH)


class _Comparison:
    """Says of pairs of documents (places in the order) whether they are near."""

    def __init__(
        self,
        signatures: Signatures,
        order: Numbers,
        spec: NearDuplicates,
        count_shingles: Callable[[Numbers], Similarities] | None,
    ) -> None:
        self._signatures, self._order = signatures, order
        self._threshold, self._count_shingles = spec.threshold, count_shingles
        spread = (spec.threshold * (1 - spec.threshold) / spec.permutations) ** 0.5
        self._doubt = SIGMAS * spread
        self.num_compared = self.num_counted = 0

    def are_near(self, kept: Numbers, others: Numbers) -> Mask:
        """Whether each pair is; `kept` ascending."""
        self.num_compared += len(kept)
        pairs = np.stack([self._order[kept], self._order[others]], axis=1)
        similarities = np.empty(len(kept), dtype=np.float64)
        for here in _batches(len(kept)):
            left, right = self._signatures[pairs[here, 0]], self._signatures[pairs[here, 1]]
            similarities[here] = (left == right).mean(axis=1)
        if self._count_shingles is not None:
            # where it is further off, the estimate is on the right side of the threshold
            in_doubt = np.abs(similarities - self._threshold) <= self._doubt
            self.num_counted += int(in_doubt.sum())
            similarities[in_doubt] = self._count_shingles(pairs[in_doubt])
        near: Mask = similarities >= self._threshold
        return near
