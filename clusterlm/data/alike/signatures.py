"""MinHash signatures: two documents agree in about as many places as they share of their shingles.

One-permutation hashing: each shingle is thrown into one of the places of the signature, and the
least value there stays. What is still empty is thrown at again, with another hash, by the
documents that lack something (Dahlgaard, Knudsen, Thorup 2017, "Fast similarity sketching"), and
what 16 rounds have not filled gets a permutation of its own. So the share of equal places has mean
J (Jaccard) and a standard deviation of at most sqrt(J (1 - J) / permutations), however short the
documents. A value tells its round in its upper bits, from which follows

    the signature of A and B together = the lesser of the two, place by place

so a document may come in parts, and nothing depends on how documents are put in chunks. All is
splitmix64: the same on every machine. About 12 ns a token, 80 in documents of 100 tokens, which
lack more; seven times that where numpy is older than 1.25 (ufunc.at).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clusterlm.data.alike.shingles import windows_of
from clusterlm.data.order import Keys, mix
from clusterlm.data.store.documents import Numbers, TokenArray
from clusterlm.spec.data import NearDuplicates

Signatures = npt.NDArray[np.uint32]

EMPTY = 0xFFFFFFFF
"""All places of a document without tokens."""
ROUNDS = 16
# a value is 5 bits of the round, then 27 of the hash
VALUE_BITS = 27
_GAMMA = 0x9E3779B97F4A7C15


def signatures_of(
    tokens: TokenArray, starts: Numbers, lengths: Numbers, spec: NearDuplicates
) -> Signatures:
    """The signature of each document, of shape (documents, spec.permutations).

    A text that comes in several rows gets the least of theirs: np.minimum.reduceat(signatures,
    first_rows). Marks before and behind each document do no harm.
    """
    signatures = np.full((len(starts), spec.permutations), EMPTY, dtype=np.uint32)
    for rows, _, hashes, counts in windows_of(tokens, starts, lengths, spec.shingle):
        signed = _sign(hashes, counts, spec.permutations)
        signatures[rows] = np.minimum(signatures[rows], signed)
    return signatures


def _sign(hashes: Keys, counts: Numbers, permutations: int) -> Signatures:
    signatures = np.full((len(counts), permutations), EMPTY, dtype=np.uint32)
    rows = np.arange(len(counts), dtype=np.int64)
    for round_ in range(ROUNDS):
        thrown = hashes if not round_ else mix(hashes + np.uint64(round_ * _GAMMA % 2**64))
        _throw(signatures, np.repeat(rows * permutations, counts), thrown, round_)
        lacking = (signatures[rows] == EMPTY).any(axis=1) & (counts > 0)
        if not lacking.any():
            return signatures
        hashes = hashes[np.repeat(lacking, counts)]
        rows, counts = rows[lacking], counts[lacking]
    _fill(signatures, rows, hashes, counts)
    return signatures


def _throw(signatures: Signatures, bases: Numbers, hashes: Keys, round_: int) -> None:
    """Each hash at the place that its upper 32 bits say; the least stays."""
    places = hashes >> np.uint64(32)
    places *= np.uint64(signatures.shape[1])
    places >>= np.uint64(32)
    places += bases.view(np.uint64)
    np.minimum.at(signatures.reshape(-1), places.view(np.int64), _values(hashes, round_))


def _values(hashes: Keys, round_: int) -> Signatures:
    values = hashes.astype(np.uint32)
    values &= np.uint32((1 << VALUE_BITS) - 1)
    values |= np.uint32(round_ << VALUE_BITS)
    return values


def _fill(signatures: Signatures, rows: Numbers, hashes: Keys, counts: Numbers) -> None:
    """The least of all hashes of the row, for each place that is still empty.

    Few documents of few shingles come here: at most about 400 hashes a document for 128 places.
    """
    lines, places = np.nonzero(signatures[rows] == EMPTY)
    sizes = counts[lines]
    begins = np.cumsum(sizes) - sizes
    firsts = (np.cumsum(counts) - counts)[lines]
    which = np.arange(sizes.sum()) - np.repeat(begins - firsts, sizes)
    salts = mix(places.astype(np.uint64) + np.uint64(1))
    values = _values(mix(hashes[which] ^ np.repeat(salts, sizes)), ROUNDS)
    signatures[rows[lines], places] = np.minimum.reduceat(values, begins)
