"""Conversations that are longer than a block: dropped, cut, or an error, as `data.overlong` says.

That is a matter of the plan and not of the tokens: with another block size, others are too long.
"""

from __future__ import annotations

from collections import Counter
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


def fit_conversations(
    table: Table, data: Data, tokens: TokenView
) -> tuple[Table, dict[bool, Losses]]:
    """The table with nothing in it that is longer than a block and must not be cut.

    Returns:
        The table, and what was left out: of `data.validation.sources` (True), of the others
        (False).

    Raises:
        OverlongConversation: there is one, and `data.overlong` is `error`.
    """
    size = data.block_size
    is_long = table.is_chat & (table.lengths > size)
    if not is_long.any():
        return table, {False: Losses(), True: Losses()}
    if data.overlong == "error":
        row = int(np.argmax(is_long))
        raise OverlongConversation(row, int(table.lengths[row]), size)
    counted = _Counted(table)
    if data.overlong == "drop":
        counted.add("overlong", is_long, table.lengths)
        return table.where(~is_long), counted.losses()
    cut, is_empty = _truncate(table, is_long, size, tokens)
    counted.add("truncated", is_long & ~is_empty, table.lengths - size)
    counted.add("untrained", is_empty, table.lengths)
    return cut.where(~is_empty), counted.losses()


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


class _Counted:
    """Documents and tokens by side and reason."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._documents: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
        self._tokens: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}

    def add(self, reason: str, chosen: Mask, num_tokens: Numbers) -> None:
        for side in (False, True):
            here = chosen & (self._table.is_held_back == side)
            if here.any():
                self._documents[side][reason] += int(here.sum())
                self._tokens[side][reason] += int(num_tokens[here].sum())

    def losses(self) -> dict[bool, Losses]:
        return {
            side: Losses(dict(self._documents[side]), dict(self._tokens[side]))
            for side in (False, True)
        }
