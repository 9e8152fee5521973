"""Decontamination: training documents that hold passages of the validation set.

A training document gives a validation document away when it holds `share` of its n-grams, each
counted once. Three kinds of validation documents need care:

- n-grams that more than three of them hold (a licence, the system prompt of all conversations)
  show nothing and are not counted, unless the document has no others. Copies count as one.
- One shorter than an n-gram is looked for as a whole.
- One of fewer than 8 tokens ("Yes, please.") is part of half of all texts. Only the same document
  gives it away.

The index is made once and goes to the workers; a chunk of training documents is checked at once,
20 to 40 ns a token. 30 bytes of memory for each n-gram of the validation set. Starts and lengths
should leave out marks before and behind the documents, else a short one is found only where it is
a whole document.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clusterlm.data.alike.shingles import hash_windows, windows_of
from clusterlm.data.dedup import begins_of, digest_of, distinct
from clusterlm.data.order import Keys
from clusterlm.data.store.documents import Mask, Numbers, TokenArray
from clusterlm.spec.data import Decontaminate

SHORTEST = 8
"""Tokens of a document that is looked for as a part of others."""
MAX_HOLDERS = 3
"""Validation documents that may hold an n-gram which is to show something."""


class Contaminated(NamedTuple):
    """Training documents that give validation documents away.

    Attributes:
        mask: True for each training document that does.
        pairs: (training document, validation document), ascending.
    """

    mask: Mask
    pairs: Numbers


@dataclass(frozen=True)
class ValidationIndex:
    """What to look for.

    Attributes:
        ngram: tokens of an n-gram.
        hashes: n-grams that count, ascending and each once.
        offsets: holders[offsets[i] : offsets[i + 1]] are the documents with n-gram i.
        needed: n-grams of each document that give it away.
        short: the documents of SHORTEST to ngram - 1 tokens, by their number.
        heads: hash of the first SHORTEST tokens of each of `short`, ascending.
        texts: the tokens of each of `short`.
    """

    ngram: int
    hashes: Keys
    offsets: Numbers
    holders: Numbers
    needed: Numbers
    short: list[int]
    heads: Keys
    texts: list[TokenArray]

    @cached_property
    def sieve(self) -> npt.NDArray[np.uint8]:
        """Bits by the upper bits of a hash: may it be there? Set for a 32nd of others, or fewer."""
        num_bits = 1 << max(16, (32 * len(self.hashes)).bit_length())
        sieve = np.zeros(num_bits // 8, dtype=np.uint8)
        if len(self.hashes):
            places, bits = _place_in(sieve, self.hashes)
            begins = np.flatnonzero(begins_of(places))
            sieve[places[begins]] = np.bitwise_or.reduceat(np.uint8(1) << bits, begins)
        return sieve


def index_validation(
    tokens: TokenArray, starts: Numbers, lengths: Numbers, spec: Decontaminate
) -> ValidationIndex:
    """The index of these validation documents. Of copies the first counts."""
    texts = [
        tokens[start : start + length]
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]
    firsts: dict[bytes, int] = {}
    for row, text in enumerate(texts):
        firsts.setdefault(digest_of(text.tobytes()), row)
    chosen = np.array(list(firsts.values()), dtype=np.int64)
    grams, documents = _ngrams_of(tokens, starts[chosen], lengths[chosen], spec.ngram)
    counted = _counted(grams, documents)
    grams, documents = grams[counted], chosen[documents[counted]]
    begins = np.flatnonzero(begins_of(grams))
    sizes = np.bincount(documents, minlength=len(texts))
    short = [row for row in chosen.tolist() if SHORTEST <= len(texts[row]) < spec.ngram]
    heads = {row: hash_windows(texts[row][:SHORTEST], SHORTEST)[0] for row in short}
    short.sort(key=heads.__getitem__)
    return ValidationIndex(
        ngram=spec.ngram,
        hashes=grams[begins],
        offsets=np.append(begins, len(grams)),
        holders=documents,
        # a hair less, for 0.28 * 25 is 7.000000000000001
        needed=np.ceil(spec.share * sizes - 1e-9).astype(np.int64),
        short=short,
        heads=np.array([heads[row] for row in short], dtype=np.uint64),
        texts=[texts[row] for row in short],
    )


def contaminated(
    tokens: TokenArray, starts: Numbers, lengths: Numbers, index: ValidationIndex
) -> Contaminated:
    """The documents of a chunk that give validation documents away."""
    starts, lengths = starts.astype(np.int64), lengths.astype(np.int64)
    pairs = np.empty((0, 2), dtype=np.int64)
    if len(index.hashes):
        pairs = _shared_ngrams(tokens, starts, lengths, index)
    if index.short:
        pairs = np.concatenate([pairs, _whole_texts(tokens, starts, lengths, index)])
        pairs = np.unique(pairs, axis=0)
    mask = np.zeros(len(starts), dtype=np.bool_)
    mask[pairs[:, 0]] = True
    return Contaminated(mask, pairs)


def _ngrams_of(
    tokens: TokenArray, starts: Numbers, lengths: Numbers, ngram: int
) -> tuple[Keys, Numbers]:
    """Each n-gram of each document once, ascending, and the document."""
    parts = list(windows_of(tokens, starts, lengths, ngram))
    grams = np.concatenate([part.hashes for part in parts] or [np.empty(0, dtype=np.uint64)])
    documents = [np.repeat(part.rows, part.counts) for part in parts]
    holders = np.concatenate(documents or [np.empty(0, dtype=np.int64)])
    order = np.lexsort((holders, grams))
    grams, holders = grams[order], holders[order]
    is_new = begins_of(grams) | begins_of(holders)
    return grams[is_new], holders[is_new]


def _counted(grams: Keys, documents: Numbers) -> Mask:
    """Where an n-gram of a document counts."""
    begins = np.flatnonzero(begins_of(grams))
    num_holders = np.diff(np.append(begins, len(grams)))
    rare = np.repeat(num_holders <= MAX_HOLDERS, num_holders)
    has_rare = np.zeros(int(documents.max(initial=-1)) + 1, dtype=np.bool_)
    has_rare[documents[rare]] = True
    return np.asarray(rare | ~has_rare[documents])


def _place_in(sieve: npt.NDArray[np.uint8], hashes: Keys) -> tuple[Numbers, npt.NDArray[np.uint8]]:
    """The byte of each hash, and which of its bits."""
    # 2^n bytes take the upper n bits, the next three say which bit
    shift = np.uint64(62 - len(sieve).bit_length())
    upper = (hashes >> shift).view(np.int64)
    return upper >> 3, upper.astype(np.uint8) & np.uint8(7)


def _shared_ngrams(
    tokens: TokenArray, starts: Numbers, lengths: Numbers, index: ValidationIndex
) -> Numbers:
    """Pairs of a document and a validation document whose n-grams it holds enough of."""
    none = np.empty(0, dtype=np.int64)
    documents, grams = [none], [none]
    for part in windows_of(tokens, starts, lengths, index.ngram):
        at, bits = _place_in(index.sieve, part.hashes)
        maybe = np.flatnonzero(index.sieve[at] >> bits & np.uint8(1))
        places = np.searchsorted(index.hashes, part.hashes[maybe])
        places = np.minimum(places, len(index.hashes) - 1)
        sure = index.hashes[places] == part.hashes[maybe]
        lines, _ = _lines_of(maybe[sure], part.counts)
        documents.append(part.rows[lines])
        grams.append(places[sure])
    return _given_away(np.concatenate(documents), np.concatenate(grams), index)


def _given_away(documents: Numbers, grams: Numbers, index: ValidationIndex) -> Numbers:
    num_grams, num_validation = len(index.hashes), len(index.needed)
    documents, grams = np.divmod(distinct(documents * num_grams + grams), num_grams)
    holders, sizes = _expand(index.offsets[grams], index.offsets[grams + 1])
    keys = np.repeat(documents, sizes) * num_validation + index.holders[holders]
    keys = np.sort(keys)
    begins = np.flatnonzero(begins_of(keys))
    num_shared = np.diff(np.append(begins, len(keys)))
    pairs: Numbers = np.stack(np.divmod(keys[begins], num_validation), axis=1)
    enough: Mask = num_shared >= index.needed[pairs[:, 1]]
    return pairs[enough]


def _expand(begins: Numbers, ends: Numbers) -> tuple[Numbers, Numbers]:
    """The numbers of all ranges, one range behind the other, and the size of each range."""
    sizes = ends - begins
    return np.repeat(ends - np.cumsum(sizes), sizes) + np.arange(sizes.sum()), sizes


def _whole_texts(
    tokens: TokenArray, starts: Numbers, lengths: Numbers, index: ValidationIndex
) -> Numbers:
    """Pairs of a document and a short validation document that is part of it."""
    found = [np.empty((0, 2), dtype=np.int64)]
    for part in windows_of(tokens, starts, lengths, SHORTEST):
        begins = np.searchsorted(index.heads, part.hashes, side="left")
        ends = np.searchsorted(index.heads, part.hashes, side="right")
        hits = np.flatnonzero(begins < ends)
        which, sizes = _expand(begins[hits], ends[hits])
        lines, within = _lines_of(hits, part.counts)
        rows = np.repeat(part.rows[lines], sizes)
        places = np.repeat(part.starts[lines] + within, sizes)
        space = starts[rows] + lengths[rows] - places
        for one in distinct(which).tolist():
            text = index.texts[one]
            here = np.flatnonzero((which == one) & (space >= len(text)))
            there = tokens[places[here, None] + np.arange(len(text))]
            holders = distinct(rows[here][(there == text).all(axis=1)])
            found.append(np.stack([holders, np.full_like(holders, index.short[one])], axis=1))
    return np.concatenate(found)


def _lines_of(windows: Numbers, counts: Numbers) -> tuple[Numbers, Numbers]:
    """The document of each window, and which of its windows it is."""
    behind = np.cumsum(counts)
    lines = np.searchsorted(behind, windows, side="right")
    return lines, windows - (behind - counts)[lines]
