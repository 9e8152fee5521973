"""Prepared data as the trainer sees it: a folder that is opened only when it is whole.

    <cache>/<fingerprint>/
      tokens.bin               every kept document, 2 bytes a token (4 from 65536 entries on)
      mask.bin                 from token `masked_from` on (conversations) 1 bit a token: trained?
      <split>.{starts,lengths,offsets}.npy      the plan of blocks, see `pack.py`
      tokenizer/               for AutoTokenizer.from_pretrained
      manifest.json            what it is, what it was made of, counts, size and hash of each file
      READY                    the hash of the manifest

Files are mapped into memory, so all ranks of a node share one copy, and opening takes milliseconds.
Opening compares the fingerprint and the sizes; hashes are there for a full check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clusterlm.data.whole import Manifest, read_manifest
from clusterlm.errors import CacheNotReady
from clusterlm.paths import CachePaths

IGNORE_INDEX = -100
TOKENS, MASK = "tokens.bin", "mask.bin"
PLAN_COLUMNS = ("starts", "lengths", "offsets")

Sample = dict[str, npt.NDArray[Any]]


def plan_file(split: str, column: str) -> str:
    """Name of the file of one column of a split's plan."""
    return f"{split}.{column}.npy"


def open_cache(root: Path, fingerprint: str | None = None) -> Cache:
    """Open prepared data.

    Args:
        root: the folder, `<cache>/<fingerprint>`.
        fingerprint: what the spec asks for; None takes whatever is there.

    Raises:
        CacheNotReady: it is absent, unfinished, damaged, or of another content.
    """
    return Cache(root, read_manifest(root, fingerprint))


class Cache:
    """Prepared data that was checked by `open_cache`."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest

    @property
    def tokenizer_dir(self) -> Path:
        return CachePaths(self.root).tokenizer

    @property
    def splits(self) -> list[str]:
        """`train`, and `validation` if something was held back."""
        return list(self.manifest["splits"])

    def split(self, name: str) -> Blocks:
        """The blocks of a split.

        Raises:
            CacheNotReady: there is no such split.
        """
        if name not in self.manifest["splits"]:
            there = ", ".join(self.splits)
            raise CacheNotReady(f"prepared data: {self.root} has no split {name!r}; it has {there}")
        return Blocks(self.root, self.manifest, name)


class Blocks:
    """Blocks of one split; a sequence of samples, and a map-style dataset for torch's DataLoader.

    A sample holds, each of shape (block_size,):

        input_ids     int32
        labels        int64, IGNORE_INDEX where nothing is trained; the model shifts them itself
        position_ids  int32, from 0 again at each document where documents are packed
    """

    def __init__(self, root: Path, manifest: Manifest, name: str) -> None:
        self.block_size = int(manifest["block_size"])
        self._root, self._manifest, self._name = root, manifest, name
        self._pad_id = int(manifest["pad_id"])
        self._masked_from = int(manifest["masked_from"])
        self._texts_restart = manifest["packing"] != "concat"
        self._starts, self._lengths, self._offsets = (
            # viewed as plain arrays: a memmap makes each small slice ten times slower
            np.load(root / plan_file(name, column), mmap_mode="r").view(np.ndarray)
            for column in PLAN_COLUMNS
        )
        self._positions = np.arange(self.block_size, dtype=np.int32)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> Sample:
        return {name: rows[0] for name, rows in self.batch([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Several samples at once, as torch's DataLoader asks for them."""
        batch = self.batch(indices)
        return [{name: rows[i] for name, rows in batch.items()} for i in range(len(indices))]

    def batch(self, indices: Sequence[int]) -> Sample:
        """The blocks of `indices`, each array of shape (len(indices), block_size)."""
        shape = (len(indices), self.block_size)
        ids = np.empty(shape, dtype=np.int32)
        labels = np.empty(shape, dtype=np.int64)
        positions = np.empty(shape, dtype=np.int32)
        for row, index in enumerate(indices):
            self._fill(self._checked(index), ids[row], labels[row], positions[row])
        return {"input_ids": ids, "labels": labels, "position_ids": positions}

    def __reduce__(self) -> tuple[Callable[..., Blocks], tuple[Path, Manifest, str]]:
        # a mapped array would be pickled with all its content; a worker maps it anew
        return Blocks, (self._root, self._manifest, self._name)

    @cached_property
    def _tokens(self) -> npt.NDArray[Any]:
        path, dtype = self._root / TOKENS, self._manifest["dtype"]
        return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)

    @cached_property
    def _mask(self) -> npt.NDArray[np.uint8]:
        return np.memmap(self._root / MASK, dtype=np.uint8, mode="r").view(np.ndarray)

    def _checked(self, index: int) -> int:
        number = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= number < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        return number

    def _fill(
        self,
        block: int,
        ids: npt.NDArray[np.int32],
        labels: npt.NDArray[np.int64],
        positions: npt.NDArray[np.int32],
    ) -> None:
        filled = 0
        restarts = self._texts_restart
        for segment in range(int(self._offsets[block]), int(self._offsets[block + 1])):
            start, length = int(self._starts[segment]), int(self._lengths[segment])
            here = slice(filled, filled + length)
            tokens = self._tokens[start : start + length]
            ids[here] = tokens
            labels[here] = tokens
            if start >= self._masked_from:
                restarts = True
                labels[here][~self._trained(start, length)] = IGNORE_INDEX
            if restarts:
                # else the end of one document would be trained to predict the next
                labels[filled] = IGNORE_INDEX
                positions[here] = self._positions[:length]
            filled += length
        if not restarts:
            positions[:filled] = self._positions[:filled]
        ids[filled:] = self._pad_id
        labels[filled:] = IGNORE_INDEX
        positions[filled:] = self._positions[: self.block_size - filled]

    def _trained(self, start: int, length: int) -> npt.NDArray[np.bool_]:
        first = start - self._masked_from
        # the bytes that hold the bits first .. first + length, then those bits alone
        packed = self._mask[first // 8 : (first + length + 7) // 8]
        bits = np.unpackbits(packed)[first % 8 : first % 8 + length]
        return bits.astype(np.bool_)
