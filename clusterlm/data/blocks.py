"""The blocks of a split as the trainer reads them, out of the shards.

    input_ids     int32, the tokens, then padding
    labels        int32, the same, IGNORE_INDEX where nothing is trained; the model shifts them
    position_ids  int32, from 0 in each block; where documents are isolated, from 0 in each of them
    loss_weights  float32, only where a source has role weights: what each label counts

A block of 4 + 2 tokens and 2 of padding:

    isolated      positions 0 1 2 3 0 1 0 1    labels - b c d - f - -
    else          positions 0 1 2 3 4 5 0 1    labels - b c d e f - -

Positions that start anew are what tells the model where a document ends: transformers makes its
attention block-diagonal from them (with no attention_mask and no cache of keys).

The time of a batch is that of few calls for each document and none for each token: stretches of
files are joined in one go. What is left is moving memory, so ids have 4 bytes here and get their 8
on the device, where that costs nothing: a quarter less time for a batch.
"""

# B = blocks, T = tokens of a block

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clusterlm.data.pack import PLAN_COLUMNS
from clusterlm.data.store.shard_files import PADDING, Shard, ShardFiles
from clusterlm.data.store.storage import Bytes

IGNORE_INDEX = -100
PIECES_LOOKED_AT = 1_000_000

Sample = dict[str, npt.NDArray[Any]]
Int32s = npt.NDArray[np.int32]


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


class _Runs(NamedTuple):
    """What the places of a batch hold, stretch by stretch.

    Attributes:
        addresses: of the first token of each, or PADDING.
        counts: of places.
        straights: places from where positions start anew to where they do again.
    """

    addresses: list[int]
    counts: list[int]
    straights: list[int]

    @property
    def restarts(self) -> list[int]:
        """Places where positions start anew; nothing predicts the token that is there."""
        return [0, *accumulate(self.straights[:-1])]


class Blocks:
    """Blocks of one split; a sequence of samples, each array of shape (block_size,)."""

    def __init__(self, files: BlockFiles) -> None:
        self.block_size = files.block_size
        self._files = files
        self._starts, self._lengths, self._offsets, self._isolated = (
            # a memoryview gives few numbers in a fraction of the time that an array takes
            np.load(files.folder / plan_file(files.split, column), mmap_mode="r").data
            for column in PLAN_COLUMNS
        )
        size = files.block_size
        self._pad = np.full(size, files.pad_id, dtype=files.dtype).data.cast("B")
        self._count = np.arange(size, dtype=np.int32).data.cast("B")
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
        return self._shards.files.can_announce

    def batch(self, indices: Sequence[int]) -> Sample:
        """The blocks of `indices`, each array of shape (len(indices), block_size)."""
        runs = self._runs(indices)
        ids = self._ids(runs)
        labels = ids.copy()
        # else the end of one document would be trained to predict the next
        to_ignore = labels.data
        for place in runs.restarts:
            to_ignore[place] = IGNORE_INDEX
        if self._has_masks or PADDING in runs.addresses:
            self._hide_untrained(labels, runs)
        positions = self._positions(runs.straights)
        batch: Sample = {"input_ids": ids, "labels": labels, "position_ids": positions}
        if self.has_weights:
            batch["loss_weights"] = self._weights(runs, len(ids))
        shape = (len(indices), self.block_size)
        return {name: rows.reshape(shape) for name, rows in batch.items()}

    def num_filled(self, index: int) -> int:
        """Tokens of a block that are not padding."""
        return sum(self._lengths[self._offsets[index] : self._offsets[index + 1]])

    def mean_piece(self) -> float | None:
        """Length of the piece that a token stands in, on average over the tokens.

        None where documents are not isolated: there a token may see the whole block before it.
        """
        lengths = np.asarray(self._lengths[:PIECES_LOOKED_AT], dtype=np.float64)
        if not len(lengths) or not np.all(np.asarray(self._isolated[:PIECES_LOOKED_AT])):
            return None
        return float((lengths * lengths).sum() / lengths.sum())

    def will_need(self, indices: Sequence[int]) -> None:
        """Announce blocks of which the next batch is going to be made."""
        if len(indices):
            runs = self._runs(indices)
            for address, count in zip(runs.addresses, runs.counts, strict=True):
                if address != PADDING:
                    self._shards.will_need(address, count)

    @cached_property
    def _shards(self) -> ShardFiles:
        return ShardFiles(self._files.shards, self._files.dtype)

    def _checked(self, indices: Sequence[int]) -> Sequence[int]:
        count = len(self)
        if min(indices) < -count or max(indices) >= count:
            wrong = next(i for i in indices if not -count <= i < count)
            raise IndexError(f"block {wrong} of {count}")
        return [index % count for index in indices]

    def _runs(self, indices: Sequence[int]) -> _Runs:
        offsets, starts, lengths = self._offsets, self._starts, self._lengths
        runs = _Runs([], [], [])
        for block in self._checked(indices):
            segments = slice(offsets[block], offsets[block + 1])
            counts = lengths[segments].tolist()
            runs.addresses.extend(starts[segments].tolist())
            runs.counts.extend(counts)
            filled = sum(counts)
            runs.straights.extend(counts if self._isolated[block] else [filled])
            if filled < self.block_size:
                runs.addresses.append(PADDING)
                runs.counts.append(self.block_size - filled)
                runs.straights.append(self.block_size - filled)
        return runs

    def _ids(self, runs: _Runs) -> Int32s:
        pieces = self._shards.read_many(runs.addresses, runs.counts, padding=self._pad)
        raw = np.frombuffer(bytearray().join(pieces), dtype=self._shards.dtype)
        # what is read is a copy already; ids are far below 2**31
        return raw.view(np.int32) if raw.itemsize == 4 else raw.astype(np.int32)

    def _positions(self, straights: Sequence[int]) -> Int32s:
        from_zero, width = self._count, 4
        pieces = [from_zero[: count * width] for count in straights]
        return np.frombuffer(bytearray().join(pieces), dtype=np.int32)

    def _hide_untrained(self, labels: Int32s, runs: _Runs) -> None:
        """Ignore the labels of padding, and those whose bits are not set."""
        packed: list[Bytes] = []
        # places in the batch, and which of all bits in `packed` are theirs
        stretches: list[tuple[slice, slice]] = []
        num_bits = 0
        for places, shard, first in self._places(runs):
            if shard == PADDING:
                labels[places] = IGNORE_INDEX
            elif self._files.shards[shard].trained is not None:
                count = places.stop - places.start
                packed.append(self._shards.trained_bytes(shard, first, count))
                bit = num_bits + first % 8
                stretches.append((places, slice(bit, bit + count)))
                num_bits += len(packed[-1]) * 8
        is_hidden = np.unpackbits(np.frombuffer(b"".join(packed), dtype=np.uint8)) == 0
        for places, bits in stretches:
            labels[places][is_hidden[bits]] = IGNORE_INDEX

    def _weights(self, runs: _Runs, num_places: int) -> npt.NDArray[np.float32]:
        """What each place counts: its code's weight, 1 where there are no codes."""
        weights = np.ones(num_places, dtype=np.float32)
        for places, shard, first in self._places(runs):
            if shard != PADDING and self._files.shards[shard].codes is not None:
                codes = self._shards.codes(shard, first, places.stop - places.start)
                weights[places] = self._tables[shard][np.frombuffer(codes, dtype=np.uint8)]
        return weights

    def _places(self, runs: _Runs) -> Iterator[tuple[slice, int, int]]:
        """The places of each stretch, its shard (or PADDING) and its first token in there."""
        place = 0
        for address, count in zip(runs.addresses, runs.counts, strict=True):
            here = slice(place, place + count)
            place += count
            if address == PADDING:
                yield here, PADDING, 0
            else:
                shard = self._shards.shard_of(address)
                yield here, shard, address - self._shards.bases[shard]

    @cached_property
    def _tables(self) -> list[npt.NDArray[np.float32]]:
        return [np.array(shard.weights, dtype=np.float32) for shard in self._files.shards]
