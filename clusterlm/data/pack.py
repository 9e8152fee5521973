"""Documents -> blocks of `block_size` tokens, as a plan over the addresses of tokens.

A block is a list of segments (start, length); no token is copied. How segments are chosen:

    pack_stream.py   concat, document_start, paragraph_start: full blocks cut out of one stream
    pack_fit.py      best_fit: whole documents, the gaps padded
    here             padded: one document a block; and what every plan can do
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from clusterlm.data.order import shuffled
from clusterlm.data.store.documents import Mask, Numbers

PLAN_COLUMNS = ("starts", "lengths", "offsets", "isolated")


@dataclass(frozen=True)
class Plan:
    """Blocks over the addresses of tokens.

    Attributes:
        starts: address of the first token of each segment.
        lengths: int32, tokens of each segment.
        offsets: segments of block b are those from offsets[b] up to offsets[b + 1].
        isolated: of each block: no segment sees another.
        lost: tokens that are in no block, by reason: `tail` fills no block, `between` lies between
            the end of a block and the next place where one may begin.
    """

    starts: Numbers
    lengths: npt.NDArray[np.int32]
    offsets: Numbers
    isolated: Mask
    lost: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_blocks(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def num_unpredicted(self) -> int:
        """Tokens with nothing in front of them that they could be predicted from."""
        return int(np.where(self.isolated, np.diff(self.offsets), 1).sum())


def make_plan(
    starts: Numbers, lengths: Numbers, counts: Numbers, lost: Mapping[str, int] | None = None
) -> Plan:
    """A plan of isolated blocks from their segments, and how many segments each block has."""
    return Plan(
        starts=starts,
        lengths=lengths.astype(np.int32),
        offsets=offsets_of(counts),
        isolated=np.ones(len(counts), dtype=np.bool_),
        lost={reason: count for reason, count in (lost or {}).items() if count},
    )


def pad_documents(starts: Numbers, lengths: Numbers, block_size: int) -> Plan:
    """One document a block; one that is longer fills several."""
    starts, lengths = cut_overlong(starts, lengths, block_size)
    return make_plan(starts, lengths, np.ones(len(starts), dtype=np.int64))


def cut_overlong(starts: Numbers, lengths: Numbers, block_size: int) -> tuple[Numbers, Numbers]:
    """Starts and lengths of pieces of at most `block_size` tokens.

    # block_size 4: length 10 -> 4 4 2
    """
    if not len(lengths) or int(lengths.max()) <= block_size:
        return starts, lengths
    pieces = -(-lengths // block_size)
    document = np.repeat(np.arange(len(lengths)), pieces)
    number = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    left = lengths[document] - number * block_size
    return starts[document] + number * block_size, np.minimum(left, block_size)


def offsets_of(counts: Numbers) -> Numbers:
    """Where each group of `counts` begins, and where the last one ends.

    # counts 2 1 3 -> 0 2 3 6
    """
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def with_isolation(plan: Plan, isolated: bool) -> Plan:
    """The same blocks; whether their segments see each other is `isolated`."""
    return replace(plan, isolated=np.full(plan.num_blocks, isolated, dtype=np.bool_))


def join_plans(plans: Sequence[Plan]) -> Plan:
    """The blocks of all plans, one plan behind the other."""
    lost: Counter[str] = Counter()
    for plan in plans:
        lost.update(plan.lost)
    counts = np.concatenate([np.diff(plan.offsets) for plan in plans])
    return Plan(
        starts=np.concatenate([plan.starts for plan in plans]),
        lengths=np.concatenate([plan.lengths for plan in plans]),
        offsets=offsets_of(counts),
        isolated=np.concatenate([plan.isolated for plan in plans]),
        lost=dict(lost),
    )


def shuffle_blocks(plan: Plan, seed: int) -> Plan:
    """The same blocks in the order of `seed`."""
    order = shuffled(plan.num_blocks, seed)
    counts = np.diff(plan.offsets)[order]
    offsets = offsets_of(counts)
    # segment j of the new plan: as far behind its block's first one as it is now
    segment = np.repeat(plan.offsets[:-1][order] - offsets[:-1], counts) + np.arange(offsets[-1])
    return replace(
        plan,
        starts=plan.starts[segment],
        lengths=plan.lengths[segment],
        offsets=offsets,
        isolated=plan.isolated[order],
    )
