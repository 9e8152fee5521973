"""The blocks of a split as the trainer reads them, out of the shards.

    input_ids     the tokens, then padding
    labels        the same, IGNORE_INDEX where nothing is trained; the model shifts them itself
    position_ids  from 0 in each block; in one whose documents are isolated, from 0 in each document
    loss_weights  float32, only where a source has role weights: what each label counts

A block of 4 + 2 tokens and 2 of padding:

    isolated      positions 0 1 2 3 0 1 0 1    labels - b c d - f - -
    else          positions 0 1 2 3 4 5 0 1    labels - b c d e f - -

Positions that start anew are what tells the model where a document ends: transformers makes its
attention block-diagonal from them (with no attention_mask and no cache of keys).

The time of a batch is that of few calls for each document and none for each token: stretches of
files are joined in one go, and made int64 in one go.
"""

# B = blocks, T = tokens of a block

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clusterlm.data.pack import PLAN_COLUMNS
from clusterlm.data.shard_files import Shard, ShardFiles
from clusterlm.data.storage import AskedFiles, ByteFiles, Bytes, open_files

IGNORE_INDEX = -100

Sample = dict[str, npt.NDArray[Any]]
Int64s = npt.NDArray[np.int64]


def plan_file(split: str, column: str) -> str:
    """Name of the file of one column of a split's plan."""
    return f"{split}.{column}.npy"


@dataclass(frozen=True)
class BlockFiles:
    """Where the blocks of a split lie.

    Attributes:
        folder: of the plan.
        split: name of the split.
        shards: in the order of addresses.
        dtype: of the tokens.
        block_size: tokens of a block.
        pad_id: what fills a block that is not full.
    """

    folder: Path
    split: str
    shards: tuple[Shard, ...]
    dtype: str
    block_size: int
    pad_id: int


# first place in the batch, address of the first token (or _PADDING), tokens
Run = tuple[int, int, int]
_PADDING = -1


class Blocks:
    """Blocks of one split; a sequence of samples, each array of shape (block_size,)."""

    def __init__(self, files: BlockFiles) -> None:
        self.block_size = files.block_size
        self._files = files
        self._starts, self._lengths, self._offsets, self._isolated = (
            # viewed as plain arrays: a memmap makes each small slice ten times slower
            np.load(files.folder / plan_file(files.split, column), mmap_mode="r").view(np.ndarray)
            for column in PLAN_COLUMNS
        )
        size = files.block_size
        self._pad = np.full(size, files.pad_id, dtype=files.dtype).data.cast("B")
        self._count = np.arange(size, dtype=np.int64).data.cast("B")
        self.has_weights = any(shard.codes is not None for shard in files.shards)
        self._has_masks = any(shard.trained is not None for shard in files.shards)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> Sample:
        return {name: rows[0] for name, rows in self.batch([index]).items()}

    def __reduce__(self) -> tuple[Callable[..., Blocks], tuple[BlockFiles]]:
        # a mapped array would be pickled with all its content; a worker maps it anew
        return Blocks, (self._files,)

    @property
    def reads_ahead(self) -> bool:
        """Whether `will_need` is of any use."""
        return isinstance(self._bytes, AskedFiles)

    def batch(self, indices: Sequence[int]) -> Sample:
        """The blocks of `indices`, each array of shape (len(indices), block_size)."""
        runs, restarts = self._runs(self._checked(indices))
        ids = self._ids(runs)
        labels = ids.copy()
        if self._has_masks:
            self._hide_untrained(labels, runs)
        # else the end of one document would be trained to predict the next
        labels[restarts] = IGNORE_INDEX
        for place, address, count in runs:
            if address == _PADDING:
                labels[place : place + count] = IGNORE_INDEX
        batch: Sample = {
            "input_ids": ids,
            "labels": labels,
            "position_ids": self._positions(restarts, len(ids)),
        }
        if self.has_weights:
            batch["loss_weights"] = self._weights(runs, len(ids))
        shape = (len(indices), self.block_size)
        return {name: rows.reshape(shape) for name, rows in batch.items()}

    def will_need(self, indices: Sequence[int]) -> None:
        """Announce blocks of which the next batch is going to be made."""
        for _, address, count in self._runs(self._checked(indices))[0]:
            if address != _PADDING:
                self._shards.will_need(address, count)

    @cached_property
    def _shards(self) -> ShardFiles:
        return ShardFiles(self._files.shards, self._files.dtype, self._bytes)

    @cached_property
    def _bytes(self) -> ByteFiles:
        shards = self._files.shards
        return open_files(shards[0].tokens.parent if shards else self._files.folder)

    def _checked(self, indices: Sequence[int]) -> list[int]:
        count = len(self)
        blocks = [index + count if index < 0 else index for index in indices]
        if blocks and (min(blocks) < 0 or max(blocks) >= count):
            wrong = next(i for i, b in zip(indices, blocks, strict=True) if not 0 <= b < count)
            raise IndexError(f"block {wrong} of {count}")
        return blocks

    def _runs(self, blocks: Sequence[int]) -> tuple[list[Run], list[int]]:
        """What the places of a batch hold, and the places where positions start anew."""
        offsets, starts, lengths = self._offsets, self._starts, self._lengths
        runs: list[Run] = []
        restarts: list[int] = []
        place = end = 0
        for block in blocks:
            end += self.block_size
            some = slice(offsets[block], offsets[block + 1])
            restarts.append(place)
            is_isolated, first = self._isolated[block], len(runs)
            for address, count in zip(starts[some].tolist(), lengths[some].tolist(), strict=True):
                runs.append((place, address, count))
                place += count
            if is_isolated:
                restarts += [run[0] for run in runs[first + 1 :]]
            if place < end:
                restarts.append(place)
                runs.append((place, _PADDING, end - place))
                place = end
        return runs, restarts

    def _ids(self, runs: Sequence[Run]) -> Int64s:
        read, pad, width = self._shards.read, self._pad, self._shards.dtype.itemsize
        pieces: list[Bytes] = [
            pad[: count * width] if address == _PADDING else read(address, count)
            for _, address, count in runs
        ]
        raw = np.frombuffer(bytearray().join(pieces), dtype=self._files.dtype)
        return raw.astype(np.int64)

    def _positions(self, restarts: Sequence[int], num_places: int) -> Int64s:
        width, ends = 8, [*restarts[1:], num_places]
        pieces = [self._count[: (b - a) * width] for a, b in zip(restarts, ends, strict=True)]
        return np.frombuffer(bytearray().join(pieces), dtype=np.int64)

    def _hide_untrained(self, labels: Int64s, runs: Sequence[Run]) -> None:
        """Ignore the labels whose bits are not set."""
        shards = self._shards
        packed: list[Bytes] = []
        # place in the batch, first bit in `packed`, number of bits
        stretches: list[Run] = []
        num_bytes = 0
        for place, address, count in runs:
            shard = shards.shard_of(address) if address != _PADDING else 0
            first = address - shards.bases[shard]
            if address == _PADDING or shards.shards[shard].trained is None:
                continue
            packed.append(shards.trained_bytes(shard, first, count))
            stretches.append((place, num_bytes * 8 + first % 8, count))
            num_bytes += len(packed[-1])
        bits = np.unpackbits(np.frombuffer(b"".join(packed), dtype=np.uint8))
        for place, bit, count in stretches:
            here = labels[place : place + count]
            here[bits[bit : bit + count] == 0] = IGNORE_INDEX

    def _weights(self, runs: Sequence[Run], num_places: int) -> npt.NDArray[np.float32]:
        """What each place counts: its code's weight, 1 where there are no codes."""
        shards = self._shards
        weights = np.ones(num_places, dtype=np.float32)
        for place, address, count in runs:
            if address == _PADDING:
                continue
            shard = shards.shard_of(address)
            if shards.shards[shard].codes is not None:
                codes = shards.codes(shard, address - shards.bases[shard], count)
                table = self._tables[shard]
                weights[place : place + count] = table[np.frombuffer(codes, dtype=np.uint8)]
        return weights

    @cached_property
    def _tables(self) -> list[npt.NDArray[np.float32]]:
        return [np.array(shard.weights, dtype=np.float32) for shard in self._files.shards]
