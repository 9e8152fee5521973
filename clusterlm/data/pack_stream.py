"""concat, document_start, paragraph_start: full blocks cut out of the stream of all documents.

The documents stand one behind the other in the order to be trained, and blocks of exactly
block_size tokens are cut out. They differ in where a block may begin:

    concat            anywhere: each begins where the last one ends, and only the tail is lost
    document_start    where a document does; inside one that is longer than a block, every
                      block_size tokens from its start
    paragraph_start   where a document or a paragraph does

With block_size=6, documents that begin at A, paragraphs at p:

    stream     A . . p . . . . p . A . . . . p . . .
    concat     [ 1 1 1 1 1 ][2 2 2 2 2 ][3 3 3 3 3 ] +
    paragraph  [ 1 1 1 1 1 ] - [2 2 2 2 2 ] - + + + +      - = lost between, + = lost tail

A paragraph begins at a token whose predecessor ends in a newline, unless it is nothing but newlines
itself. Newlines are told by the id, so no text is needed; where one token holds the newline and the
first word behind it, there is simply no place to begin.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from clusterlm.data.pack import Plan, make_plan, offsets_of
from clusterlm.data.store.documents import Numbers
from clusterlm.data.table import TokenView
from clusterlm.data.tokens.token_bytes import NewlineTokens

# tokens looked at together: what is held at once does not grow with the data, and what is looked at
# while it is in the cache of the processor takes a third of the time
SCAN_TOKENS = 1 << 16
CHAIN_TOKENS = 1 << 24


class LegalStarts(Protocol):
    """Where in documents a block may begin."""

    def of(self, starts: Numbers, lengths: Numbers) -> tuple[Numbers, Numbers]:
        """Those of all the documents, one behind the other, and how many each has.

        A start is told in tokens from the start of its document; each document's ascend from 0.
        """
        ...


@dataclass(frozen=True)
class DocumentStarts:
    """Where documents begin; in one longer than a block, every `block_size` tokens too."""

    block_size: int

    def of(self, starts: Numbers, lengths: Numbers) -> tuple[Numbers, Numbers]:
        counts = -(-lengths // self.block_size)
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return number * self.block_size, counts


@dataclass(frozen=True)
class ParagraphStarts:
    """Where documents and paragraphs begin.

    Attributes:
        addresses: of the first tokens of paragraphs, ascending.
    """

    addresses: Numbers

    def of(self, starts: Numbers, lengths: Numbers) -> tuple[Numbers, Numbers]:
        # searched for in ascending order: neighbours find what they need in the processor's cache
        order = np.argsort(starts)
        first, last = np.empty_like(starts), np.empty_like(starts)
        # a paragraph at the start of a document is that start, which counts anyway
        first[order] = np.searchsorted(self.addresses, starts[order], side="right")
        last[order] = np.searchsorted(self.addresses, (starts + lengths)[order], side="left")
        counts = last - first + 1
        begins = np.cumsum(counts) - counts
        place = np.repeat(first - begins - 1, counts) + np.arange(counts.sum())
        # each document's first one is its start, whatever lies in front of its paragraphs
        offsets = self.addresses.take(place, mode="clip") - np.repeat(starts, counts)
        offsets[begins] = 0
        return offsets, counts


def concat_blocks(
    starts: Numbers, lengths: Numbers, block_size: int, *, keep_tail: bool = False
) -> Plan:
    """Cut the concatenation of the documents every `block_size` tokens.

    Args:
        starts: address of each document, in the order to be trained.
        lengths: tokens of each document; none is empty.
        block_size: tokens in a block.
        keep_tail: make a last, shorter block of the tokens that fill none.
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    used = total if keep_tail else total // block_size * block_size
    begins = np.arange(0, used, block_size, dtype=np.int64)
    return _cut(begins, starts, lengths, ends, block_size, {"tail": total - used})


def start_blocks(starts: Numbers, lengths: Numbers, legal: LegalStarts, block_size: int) -> Plan:
    """Cut blocks that begin at legal starts out of the documents.

    Each begins at the first legal start at or behind the end of the one before.

    Args:
        starts: address of each document, in the order to be trained.
        lengths: tokens of each document; none is empty.
        legal: where a block may begin.
        block_size: tokens in a block.
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    found, free = array("q"), 0
    for some in _parts(ends, CHAIN_TOKENS):
        offsets, counts = legal.of(starts[some], lengths[some])
        positions = np.repeat(ends[some] - lengths[some], counts) + offsets
        free = _chain(positions, free, block_size, total, found)
    begins = np.frombuffer(found, dtype=np.int64) if found else np.zeros(0, dtype=np.int64)
    tail = total - (int(begins[-1]) + block_size if len(begins) else 0)
    lost = {"between": total - len(begins) * block_size - tail, "tail": tail}
    return _cut(begins, starts, lengths, ends, block_size, lost)


def find_paragraphs(
    starts: Numbers, lengths: Numbers, newline: NewlineTokens, tokens: TokenView
) -> ParagraphStarts:
    """Look for paragraphs in documents, every token once, in the order of addresses."""
    by_address = np.argsort(starts)
    starts, lengths = starts[by_address], lengths[by_address]
    found = list(_scan(starts, starts + lengths, newline, tokens))
    # never empty, so that a search may point at something
    return ParagraphStarts(np.concatenate([*found, [np.iinfo(np.int64).max]]))


def _scan(
    starts: Numbers, ends: Numbers, newline: NewlineTokens, tokens: TokenView
) -> Iterator[Numbers]:
    """Addresses of tokens that begin a paragraph, window by window, where there are documents."""
    # bit 0: a paragraph may follow; bit 1: does not begin one
    table = newline.ends_with_newline.astype(np.uint8) | newline.is_newline_only << np.uint8(1)
    stop = int(ends[-1]) if len(ends) else 0
    begin = int(starts[0]) if len(starts) else 0
    while begin < stop:
        end = min(begin + SCAN_TOKENS, stop)
        front = max(begin - 1, 0)
        codes = table.take(tokens[front:end])
        begins = (codes[:-1] & ~(codes[1:] >> 1)) & 1
        yield np.flatnonzero(begins.view(np.bool_)) + (front + 1)
        following = int(np.searchsorted(ends, end, side="right"))
        begin = max(end, int(starts[following])) if following < len(starts) else stop


def _chain(positions: Numbers, free: int, block_size: int, total: int, begins: array[int]) -> int:
    """Add the blocks that begin in `positions` to `begins`.

    Args:
        positions: legal starts in the stream, ascending.
        free: end of the last block so far.
        block_size: tokens in a block.
        total: end of the stream.
        begins: gets where each block begins.

    Returns:
        The end of the last block.
    """
    # a memoryview gives python ints faster than an array of numpy does
    legal, count = positions.data, len(positions)
    place = bisect_left(legal, free)
    while place < count and legal[place] + block_size <= total:
        begins.append(legal[place])
        free = legal[place] + block_size
        # no two are at one place, so it is among the next block_size
        place = bisect_left(legal, free, place + 1, min(count, place + block_size + 1))
    return free


def _cut(
    begins: Numbers,
    starts: Numbers,
    lengths: Numbers,
    ends: Numbers,
    block_size: int,
    lost: dict[str, int],
) -> Plan:
    """The plan of blocks that begin at `begins` of the stream of documents."""
    if not len(begins):
        none = np.zeros(0, dtype=np.int64)
        return make_plan(none, none, none, lost)
    stops = np.minimum(begins + block_size, ends[-1])
    first = np.searchsorted(ends, begins, side="right")
    counts = np.searchsorted(ends, stops, side="left") - first + 1
    offsets = offsets_of(counts)
    document = np.repeat(first - offsets[:-1], counts) + np.arange(offsets[-1])
    document_begins = (ends - lengths)[document]
    segment_begins = np.maximum(document_begins, np.repeat(begins, counts))
    segment_ends = np.minimum(ends[document], np.repeat(stops, counts))
    addresses = starts[document] + segment_begins - document_begins
    return make_plan(addresses, segment_ends - segment_begins, counts, lost)


def _parts(ends: Numbers, num_tokens: int) -> Iterator[slice]:
    """Neighbouring documents of about `num_tokens` tokens together."""
    total = int(ends[-1]) if len(ends) else 0
    bounds = np.searchsorted(ends, np.arange(num_tokens, total, num_tokens)) + 1
    edges = np.unique(np.concatenate([[0], bounds, [len(ends)]])).tolist()
    for begin, end in zip(edges, edges[1:], strict=False):
        yield slice(begin, end)
