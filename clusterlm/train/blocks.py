"""The prepared blocks as torch sees them, and their order.

Blocks have one length, so a batch is a few copies out of files (`data/blocks.py`) and nothing is
padded here.
The order is ours, not accelerate's: which block comes at which step is a function of seed and epoch
alone, whatever the version, so the data position after a resume is exact.
"""

# B = blocks, T = tokens of a block

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Sampler

from clusterlm.data.blocks import Blocks, Sample

Batch = dict[str, torch.Tensor]


class BlockOrder(Sampler[int]):
    """Every block once an epoch, in an order that only seed and epoch decide.

    Epochs follow each other as one stream. `moved` begins each so many blocks further on: after a
    resume with steps of another size, the place of a step is another (`resume.py`).
    """

    def __init__(self, num_blocks: int, seed: int) -> None:
        self.epoch = 0
        self.moved = 0
        self._num_blocks = num_blocks
        self._seed = seed
        self._made: tuple[tuple[int, int], npt.NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return self._num_blocks

    def __iter__(self) -> Iterator[int]:
        yield from self.permutation().tolist()

    def permutation(self) -> npt.NDArray[np.int64]:
        """The order of this epoch."""
        key = self.epoch, self.moved
        if self._made is None or self._made[0] != key:
            epoch, passed = divmod(self.epoch * self._num_blocks + self.moved, self._num_blocks)
            order = self._shuffle(epoch)
            if passed:
                order = np.concatenate([order[passed:], self._shuffle(epoch + 1)[:passed]])
            self._made = key, order
        return self._made[1]

    def _shuffle(self, epoch: int) -> npt.NDArray[np.int64]:
        # what would lie before the first epoch was trained already, and is skipped
        generator = np.random.default_rng([self._seed, max(epoch, 0)])
        return generator.permutation(self._num_blocks)


class ReadAhead:
    """Announces the blocks of this rank's next batch, for files on a network.

    All stretches of a batch are under way at once, and while a batch is trained, those of the next.
    A rank gets every n-th batch of the order, n being the number of ranks; how far its batches lie
    apart is seen from two of them.
    """

    def __init__(self, blocks: Blocks, order: BlockOrder) -> None:
        self._blocks, self._order = blocks, order
        self._place: int | None = None
        self._announced: list[int] = []

    def behind(self, indices: Sequence[int]) -> list[int]:
        """The blocks of the batch that will follow on `indices`; none where that is unknown."""
        order, count = self._order.permutation(), len(indices)
        found = np.flatnonzero(order == indices[0])
        before, self._place = self._place, int(found[0]) if len(found) else None
        # an evaluation has another order
        if self._place is None or order[self._place : self._place + count].tolist() != [*indices]:
            self._place = None
        if before is None or self._place is None or self._place <= before:
            return []
        following = 2 * self._place - before
        batch: list[int] = order[following : following + count].tolist()
        return batch

    def announce(self, indices: Sequence[int]) -> None:
        """Announce this batch, unless that was done, and the next."""
        if self._announced != [*indices]:
            self._blocks.will_need(indices)
        self._announced = self.behind(indices)
        self._blocks.will_need(self._announced)


class BlockDataset(Dataset[Sample]):
    """Blocks of one split; reads a whole micro batch at once."""

    def __init__(self, blocks: Blocks, seed: int) -> None:
        self.order = BlockOrder(len(blocks), seed)
        self.blocks = blocks
        self._ahead = ReadAhead(blocks, self.order)

    @property
    def has_weights(self) -> bool:
        """Batches tell what each label counts."""
        return self.blocks.has_weights

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> Sample:
        return self.blocks[index]

    def __getitems__(self, indices: Sequence[int]) -> Sample:
        """Called by torch's loader with the indices of one micro batch; arrays of shape (B, T)."""
        if self.blocks.reads_ahead:
            self._ahead.announce(indices)
        return self.blocks.batch(indices)

    def batch(self, indices: Sequence[int]) -> Sample:
        """A micro batch outside the order of training; nothing is read ahead for it."""
        return self.blocks.batch(indices)

    def set_epoch(self, epoch: int) -> None:
        """Called by transformers through accelerate's loader before an epoch is read."""
        self.order.epoch = epoch


def collate_blocks(batch_BT: Sample) -> Batch:
    """The arrays of a micro batch as tensors, each of shape (B, T); see `data/blocks.py`.

    Ids travel as int32; `widen_ids` makes them int64 on the device.
    """
    return {name: torch.from_numpy(array) for name, array in batch_BT.items()}


def widen_ids(batch_BT: dict[str, Any]) -> dict[str, Any]:
    """The batch with its ids as int64: a loss and some models (gather) take nothing else."""
    return {
        name: value.long() if getattr(value, "dtype", None) == torch.int32 else value
        for name, value in batch_BT.items()
    }


def first_batches(dataset: BlockDataset, size: int, num_blocks: int = 64) -> list[Batch]:
    """Batches of the first blocks in the order of training, the same on every rank."""
    indices = [int(index) for index in dataset.order.permutation()[:num_blocks]]
    batches = [dataset.batch(indices[at : at + size]) for at in range(0, len(indices), size)]
    return [widen_ids(collate_blocks(batch)) for batch in batches]


def count_tokens(step: int, *, num_blocks: int, blocks_per_step: int, block_size: int) -> int:
    """Tokens trained on after `step` optimizer steps; the last step of an epoch may be short.

    With 10 blocks of 4 tokens and 4 blocks a step: 16, 32, 40 | 56, 72, 80 | ...
    """
    steps_per_epoch = -(-num_blocks // blocks_per_step)
    epochs, rest = divmod(step, steps_per_epoch)
    return (epochs * num_blocks + min(rest * blocks_per_step, num_blocks)) * block_size
