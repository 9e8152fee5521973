"""Which blocks are trained on and which are validated on, from the table of kept documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clusterlm.data.collect import Numbers, Table
from clusterlm.data.order import shuffled
from clusterlm.data.pack import Plan, concat_blocks, join_plans, pack_documents, shuffle_blocks
from clusterlm.data.split import split_documents
from clusterlm.errors import DataError
from clusterlm.spec.data import Data


@dataclass(frozen=True)
class SplitPlan:
    """The blocks of one split.

    Attributes:
        num_documents: distinct documents; a weight above 1 does not count them again.
        num_supervised: tokens that are trained in one pass.
    """

    plan: Plan
    num_documents: int
    num_supervised: int


def plan_splits(table: Table, data: Data) -> dict[str, SplitPlan]:
    """`train`, and `validation` if the spec holds something back; neither is empty.

    Raises:
        DataError: the documents fill no block.
    """
    train, validation = split_documents(table, data.validation.fraction)
    splits = {"train": _plan_train(train, data)}
    if not splits["train"].plan.num_blocks:
        raise DataError(
            f"{len(train)} documents of {int(train.lengths.sum())} tokens fill no block of"
            f" data.block_size {data.block_size}; give more data, or make the block smaller"
        )
    if data.validation.fraction or data.validation.sources:
        splits["validation"] = _plan_validation(validation, data)
    return splits


def _plan_train(table: Table, data: Data) -> SplitPlan:
    chosen = np.repeat(np.arange(len(table)), table.repeats)
    order = chosen[shuffled(len(chosen), data.seed)]
    split = _plan(table, order, data, keep_tail=False)
    return SplitPlan(shuffle_blocks(split.plan, data.seed), len(table), split.num_supervised)


def _plan_validation(table: Table, data: Data) -> SplitPlan:
    # one block of few tokens is better than no validation at all
    order = np.arange(len(table))
    split = _plan(table, order, data, keep_tail=False)
    return split if split.plan.num_blocks else _plan(table, order, data, keep_tail=True)


def _plan(table: Table, order: Numbers, data: Data, *, keep_tail: bool) -> SplitPlan:
    texts, chats = order[~table.is_chat[order]], order[table.is_chat[order]]
    if data.packing == "concat":
        of_texts = concat_blocks(
            table.starts[texts], table.lengths[texts], data.block_size, keep_tail=keep_tail
        )
        num_supervised = of_texts.num_tokens
    else:
        of_texts = pack_documents(table.starts[texts], table.lengths[texts], data.block_size)
        # the first token of each segment is predicted from nothing
        num_supervised = of_texts.num_tokens - len(of_texts.starts)
    of_chats = pack_documents(table.starts[chats], table.lengths[chats], data.block_size)
    num_supervised += int(table.supervised[chats].sum())
    return SplitPlan(join_plans([of_texts, of_chats]), len(table), num_supervised)
