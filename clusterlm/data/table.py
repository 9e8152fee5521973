"""The kept documents, one row each, wherever their tokens lie.

Tokens have addresses: shard k of the store covers those from base[k] up to base[k] + size[k], and a
document lies in one shard. What is planned (split, mix, blocks) is planned over this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from clusterlm.data.order import Keys
from clusterlm.data.store.documents import Mask, Numbers, TokenArray


@dataclass(frozen=True)
class Table:
    """Documents in reading order.

    Attributes:
        starts: address of the first token.
        lengths: number of tokens.
        trained: trained tokens of a conversation; of a text nobody asks.
        keys: 8 bytes of the digest of the content.
        source: int32, place of the source in reading order.
        is_chat: a conversation, else a text.
        is_held_back: comes from `data.validation.sources`.
    """

    starts: Numbers
    lengths: Numbers
    trained: Numbers
    keys: Keys
    source: np.ndarray[tuple[int], np.dtype[np.int32]]
    is_chat: Mask
    is_held_back: Mask

    def __len__(self) -> int:
        return len(self.starts)

    def where(self, chosen: Mask) -> Table:
        """The rows for which `chosen` is true."""
        if chosen.all():
            return self
        return Table(**{name: column[chosen] for name, column in vars(self).items()})

    def num_trained(self, *, isolated: bool) -> Numbers:
        """The same, without the first token of a text that has nothing in front of it."""
        trained: Numbers = self.num_supervised - np.where(self.is_chat | (not isolated), 0, 1)
        return trained

    @property
    def num_supervised(self) -> Numbers:
        """Tokens of each row that the loss is made of: all of a text."""
        return np.where(self.is_chat, self.trained, self.lengths)


class TokenView(Protocol):
    """The tokens of all shards by address; see `shard_files.py`."""

    def __getitem__(self, addresses: slice) -> TokenArray: ...

    def count_trained(self, starts: Numbers, lengths: Numbers) -> Numbers:
        """How many tokens of each stretch are trained."""
        ...
