"""Documents -> blocks of exactly `block_size` tokens, as a plan over the stream of tokens.

A block is a list of segments (start, length) of the stream; no token is copied. Two ways:

    concat      one stream of all documents, cut every block_size tokens; the tail that fills no
                block is left out. Nothing else is lost, and nothing is padding.
    packed      (document_start, and conversations always) whole documents, first fit; no document
                crosses a block unless it is longer than one. Nothing is lost; the gaps are padding,
                about 1 % where documents are much shorter than a block.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clusterlm.data.order import shuffled

OPEN_BINS = 64

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """Blocks over the stream.

    Attributes:
        starts: first token of each segment.
        lengths: tokens of each segment.
        offsets: segments of block b are those from offsets[b] up to offsets[b + 1].
        num_dropped: tokens that fill no block.
    """

    starts: Numbers
    lengths: npt.NDArray[np.int32]
    offsets: Numbers
    num_dropped: int = 0

    @property
    def num_blocks(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum(dtype=np.int64))


def concat_blocks(
    starts: Numbers, lengths: Numbers, block_size: int, *, keep_tail: bool = False
) -> Plan:
    """Cut the concatenation of the documents every `block_size` tokens.

    With block_size=4 and documents aaa | bbbbb | cc:

        a a a b    b b b b    (c c)        () = left out

    Args:
        starts: of each document in the stream, in the order to be trained.
        lengths: of each document.
        block_size: tokens in a block.
        keep_tail: make a last, shorter block of the tokens that fill none.
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    used = total if keep_tail else total // block_size * block_size
    full = np.arange(block_size, used + 1, block_size, dtype=np.int64)
    # documents [3 8 10] and blocks [4 8] -> segments end at [3 4 8]
    cuts = np.union1d(ends[ends <= used], full)
    if used and (not len(cuts) or cuts[-1] < used):
        cuts = np.append(cuts, used)
    begins = np.concatenate([np.zeros(1, dtype=np.int64), cuts])[:-1]
    document = np.searchsorted(ends, begins, side="right")
    num_blocks = -(-used // block_size)
    return Plan(
        starts=starts[document] + begins - (ends - lengths)[document],
        lengths=(cuts - begins).astype(np.int32),
        offsets=np.searchsorted(begins, np.arange(num_blocks + 1) * block_size).astype(np.int64),
        num_dropped=total - used,
    )


def pack_documents(
    starts: Numbers, lengths: Numbers, block_size: int, *, open_bins: int = OPEN_BINS
) -> Plan:
    """Pack whole documents into blocks, first fit.

    With block_size=6 and documents aaa | bb | cccc | dddddddd (longer than a block):

        tokens     a a a b b .    c c c c d d    d d d d d d       . = pad
        positions  0 1 2 0 1 0    0 1 2 3 0 1    0 1 2 3 4 5

    A document longer than a block fills blocks of its own; what is left of it is packed as a
    document of its own.

    Args:
        starts: of each document in the stream, in the order to be trained.
        lengths: of each document.
        block_size: tokens in a block.
        open_bins: blocks kept open at once. More bins, less padding, more time.

    Source: first-fit bin packing; compare https://arxiv.org/pdf/2404.10830.
    """
    starts, lengths = cut_overlong(starts, lengths, block_size)
    block = np.array(_first_fit(lengths.tolist(), block_size, open_bins), dtype=np.int64)
    order = np.argsort(block, kind="stable")
    num_blocks = int(block.max()) + 1 if len(block) else 0
    counts = np.bincount(block, minlength=num_blocks)
    return Plan(
        starts=starts[order],
        lengths=lengths[order].astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def cut_overlong(starts: Numbers, lengths: Numbers, block_size: int) -> tuple[Numbers, Numbers]:
    """Starts and lengths of pieces of at most `block_size` tokens.

    # block_size 4: length 10 -> 4 4 2
    """
    pieces = -(-lengths // block_size)
    document = np.repeat(np.arange(len(lengths)), pieces)
    number = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    left = lengths[document] - number * block_size
    return starts[document] + number * block_size, np.minimum(left, block_size)


def join_plans(plans: Sequence[Plan]) -> Plan:
    """The blocks of all plans, one plan behind the other."""
    steps = np.cumsum([0, *(len(plan.starts) for plan in plans)])
    offsets = [plan.offsets[1:] + step for plan, step in zip(plans, steps, strict=False)]
    return Plan(
        starts=np.concatenate([plan.starts for plan in plans]),
        lengths=np.concatenate([plan.lengths for plan in plans]),
        offsets=np.concatenate([np.zeros(1, dtype=np.int64), *offsets]),
        num_dropped=sum(plan.num_dropped for plan in plans),
    )


def shuffle_blocks(plan: Plan, seed: int) -> Plan:
    """The same blocks in the order of `seed`."""
    order = shuffled(plan.num_blocks, seed)
    counts = np.diff(plan.offsets)[order]
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    # segment j of the new plan: as far behind its block's first one as it is now
    within = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], counts)
    segment = np.repeat(plan.offsets[:-1][order], counts) + within
    return Plan(plan.starts[segment], plan.lengths[segment], offsets, plan.num_dropped)


def _first_fit(lengths: Sequence[int], block_size: int, open_bins: int) -> array[int]:
    """The block of each piece, numbered in the order of opening."""
    block_of = array("q")
    # block -> tokens that still fit; a dict keeps the order of opening
    room: dict[int, int] = {}
    num_blocks = 0
    for length in lengths:
        block = next((b for b, left in room.items() if left >= length), None)
        if block is None:
            block, num_blocks = num_blocks, num_blocks + 1
            room[block] = block_size
        block_of.append(block)
        room[block] -= length
        if not room[block]:
            del room[block]
        elif len(room) > open_bins:
            del room[min(room, key=room.__getitem__)]
    return block_of
