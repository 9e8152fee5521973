"""Conversations that are longer than a block: dropped, cut, or an error, as `data.overlong` says.

That is a matter of the plan and not of the tokens: with another block size, others are too long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from clusterlm.data.store.documents import Mask, Numbers
from clusterlm.data.table import Table, TokenView
from clusterlm.errors import DataError
from clusterlm.spec.data import Data


class OverlongConversation(DataError):
    """A conversation has more tokens than a block, and that is to stop the run.

    Attributes:
        row: which one, in the table that was given.
    """

    def __init__(self, row: int, num_tokens: int, block_size: int) -> None:
        super().__init__(
            f"a conversation of {num_tokens} tokens is longer than data.block_size {block_size};"
            " set data.overlong: drop to leave such ones out, or truncate to cut them"
        )
        self.row = row
        self.num_tokens = num_tokens
        self.block_size = block_size

    def __reduce__(self) -> tuple[type[OverlongConversation], tuple[int, int, int]]:
        return OverlongConversation, (self.row, self.num_tokens, self.block_size)


@dataclass(frozen=True)
class Losses:
    """What is left out before documents become blocks, by reason.

    `overlong`: conversations that are dropped; `truncated`: those that are cut, and the tokens cut
    off; `untrained`: those with nothing to train in what is left.
    """

    documents: Mapping[str, int] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)


def refuse_overlong(table: Table, data: Data) -> None:
    """Nothing is longer than a block, where that is to stop the run.

    Raises:
        OverlongConversation: there is one, and `data.overlong` is `error`.
    """
    is_long = table.is_chat & (table.lengths > data.block_size)
    if data.overlong == "error" and is_long.any():
        row = int(np.argmax(is_long))
        raise OverlongConversation(row, int(table.lengths[row]), data.block_size)


def fit_conversations(table: Table, data: Data, tokens: TokenView) -> tuple[Table, Losses]:
    """The table with nothing in it that is longer than a block and must not be cut."""
    size = data.block_size
    is_long = table.is_chat & (table.lengths > size)
    if not is_long.any():
        return table, Losses()
    if data.overlong == "drop":
        return table.where(~is_long), _losses({"overlong": (is_long, table.lengths)})
    cut, is_empty = _truncate(table, is_long, size, tokens)
    lost = {
        "truncated": (is_long & ~is_empty, table.lengths - size),
        "untrained": (is_empty, table.lengths),
    }
    return cut.where(~is_empty), _losses(lost)


def _truncate(table: Table, is_long: Mask, size: int, tokens: TokenView) -> tuple[Table, Mask]:
    """The table with long conversations cut, and which of them have nothing to train any more."""
    starts, ones = table.starts[is_long], np.ones(int(is_long.sum()), dtype=np.int64)
    counts = tokens.count_trained(starts, ones * size)
    trained = table.trained.copy()
    trained[is_long] = counts
    is_empty = is_long.copy()
    # the first token is predicted from nothing
    is_empty[is_long] = counts <= tokens.count_trained(starts, ones)
    lengths = np.where(is_long, size, table.lengths)
    return replace(table, lengths=lengths, trained=trained), is_empty


def _losses(lost: Mapping[str, tuple[Mask, Numbers]]) -> Losses:
    """Rows that are left out, and how many tokens of each, by reason."""
    found = {reason: rows for reason, rows in lost.items() if rows[0].any()}
    return Losses(
        {reason: int(rows.sum()) for reason, (rows, _) in found.items()},
        {reason: int(count[rows].sum()) for reason, (rows, count) in found.items()},
    )
