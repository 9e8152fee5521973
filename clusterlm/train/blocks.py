"""The prepared blocks as torch sees them, and their order.

Blocks lie in memory-mapped files and have one length, so a batch is a copy and nothing is padded.
The order is ours, not accelerate's: which block comes at which step is a function of seed and epoch
alone, whatever the version, so the data position after a resume is exact.
"""

# B = blocks, T = tokens of a block

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from clusterlm.data.cache import Blocks, Sample

Batch = dict[str, torch.Tensor]


class BlockOrder(Sampler[int]):
    """Every block once an epoch, in an order that only seed and epoch decide."""

    def __init__(self, num_blocks: int, seed: int) -> None:
        self.epoch = 0
        self._num_blocks = num_blocks
        self._seed = seed

    def __len__(self) -> int:
        return self._num_blocks

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self._seed, self.epoch])
        yield from generator.permutation(self._num_blocks).tolist()


class BlockDataset(Dataset[Sample]):
    """Blocks of one split; reads a whole micro batch at once."""

    def __init__(self, blocks: Blocks, seed: int) -> None:
        self.order = BlockOrder(len(blocks), seed)
        self._blocks = blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index: int) -> Sample:
        return self._blocks[index]

    def __getitems__(self, indices: Sequence[int]) -> Sample:
        """Called by torch's loader with the indices of one micro batch; arrays of shape (B, T)."""
        return self._blocks.batch(indices)

    def set_epoch(self, epoch: int) -> None:
        """Called by transformers through accelerate's loader before an epoch is read."""
        self.order.epoch = epoch


def collate_blocks(batch_BT: Sample) -> Batch:
    """The arrays of a micro batch as int64 tensors, each of shape (B, T)."""
    return {name: torch.from_numpy(array).long() for name, array in batch_BT.items()}


def count_tokens(step: int, *, num_blocks: int, blocks_per_step: int, block_size: int) -> int:
    """Tokens trained on after `step` optimizer steps; the last step of an epoch may be short.

    With 10 blocks of 4 tokens and 4 blocks a step: 16, 32, 40 | 56, 72, 80 | ...
    """
    steps_per_epoch = -(-num_blocks // blocks_per_step)
    epochs, rest = divmod(step, steps_per_epoch)
    return (epochs * num_blocks + min(rest * blocks_per_step, num_blocks)) * block_size
