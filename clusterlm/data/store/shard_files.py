"""The tokens of all shards as one space of addresses, read where they lie.

Shard k covers the addresses from base[k] on, in the order given. Beside its tokens it may have

    trained   conversations: one bit a token, in the order of np.packbits: is it trained?
    codes     conversations with role weights: one byte a token, which of `weights` it has
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from clusterlm.data.store.documents import Numbers, TokenArray
from clusterlm.data.store.storage import ByteFile, ByteFiles, Bytes, open_files

PADDING = -1
"""In place of an address: no token."""

# how many bits are set in each byte
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1).astype(np.uint8)


@dataclass(frozen=True)
class Shard:
    """The files of a shard.

    Attributes:
        trained: None where every token is trained, as with texts.
        codes: None where every token counts alike.
        weights: what the codes mean.
    """

    tokens: Path
    num_tokens: int
    trained: Path | None = None
    codes: Path | None = None
    weights: tuple[float, ...] = ()


class ShardFiles:
    """Reads tokens, and what is known of them, by address.

    Args:
        shards: in the order of addresses.
        dtype: of the tokens.
        files: how bytes are read; None chooses by where the first shard lies.
    """

    def __init__(self, shards: Sequence[Shard], dtype: str, files: ByteFiles | None = None) -> None:
        self.shards = tuple(shards)
        self.dtype = np.dtype(dtype)
        self.bases = [0, *accumulate(shard.num_tokens for shard in self.shards)]
        if files is None:
            folder = self.shards[0].tokens.parent if self.shards else Path()
            files = open_files(folder)
        self.files = files
        self._opened = _Opened(self)
        # bits and codes
        self._beside: dict[Path, ByteFile] = {}

    @property
    def num_tokens(self) -> int:
        return self.bases[-1]

    def shard_of(self, address: int) -> int:
        """Which shard holds the token at `address`."""
        return bisect_right(self.bases, address) - 1

    def read(self, address: int, count: int) -> Bytes:
        """Tokens of one shard, as bytes."""
        return self.read_many([address], [count], padding=b"")[0]

    def read_many(
        self, addresses: Sequence[int], counts: Sequence[int], *, padding: Bytes
    ) -> list[Bytes]:
        """Stretches of tokens, each of one shard, as bytes; for PADDING the front of `padding`."""
        # a batch has a hundred of them: what a turn of this loop costs is the time of a batch
        bases, opened, width = self.bases, self._opened, self.dtype.itemsize
        stretches = []
        for address, count in zip(addresses, counts, strict=True):
            if address == PADDING:
                stretches.append(padding[: count * width])
            else:
                shard = bisect_right(bases, address) - 1
                first = (address - bases[shard]) * width
                stretches.append(opened[shard][first : first + count * width])
        return stretches

    def __getitem__(self, addresses: slice) -> TokenArray:
        begin, end, _ = addresses.indices(self.num_tokens)
        parts = [
            np.frombuffer(self.read(first, count), dtype=self.dtype)
            for first, count in self._by_shard(begin, end)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, self.dtype), *parts])

    def will_need(self, address: int, count: int) -> None:
        """Announce tokens of one document that are going to be read."""
        shard = self.shard_of(address)
        width = self.dtype.itemsize
        first = (address - self.bases[shard]) * width
        self.files.will_need(self.shards[shard].tokens, first, count * width)

    def trained_bytes(self, shard: int, first: int, count: int) -> Bytes:
        """What holds the bits of tokens first .. first + count of a shard that has them."""
        return self._open_beside(self.shards[shard].trained)[first // 8 : (first + count + 7) // 8]

    def codes(self, shard: int, first: int, count: int) -> Bytes:
        """The codes of tokens first .. first + count of a shard that has them."""
        return self._open_beside(self.shards[shard].codes)[first : first + count]

    def count_trained(self, starts: Numbers, lengths: Numbers) -> Numbers:
        """How many tokens of each stretch of a document are trained."""
        counts = lengths.copy()
        place = np.searchsorted(self.bases, starts, side="right") - 1
        for shard in np.unique(place).tolist():
            if self.shards[shard].trained is None:
                continue
            here = place == shard
            first = starts[here] - self.bases[shard]
            bits = self.trained_bytes(shard, 0, self.shards[shard].num_tokens)
            before = _OnesBefore(np.frombuffer(bits, dtype=np.uint8))
            counts[here] = before.of(first + lengths[here]) - before.of(first)
        return counts

    def _open_beside(self, path: Path | None) -> ByteFile:
        assert path is not None
        file = self._beside.get(path)
        if file is None:
            file = self._beside[path] = self.files.open(path)
        return file

    def _by_shard(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        while begin < end:
            stop = min(end, self.bases[self.shard_of(begin) + 1])
            yield begin, stop - begin
            begin = stop


class _Opened(dict[int, ByteFile]):
    """Files of tokens by shard, opened when they are first asked for."""

    def __init__(self, shards: ShardFiles) -> None:
        super().__init__()
        self._shards = shards

    def __missing__(self, shard: int) -> ByteFile:
        file = self[shard] = self._shards.files.open(self._shards.shards[shard].tokens)
        return file


class _OnesBefore:
    """Counts of bits in front of a place, by the counts in front of each byte."""

    def __init__(self, packed: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
        self._packed = np.append(packed, np.uint8(0))
        self._sums = np.zeros(len(packed) + 1, dtype=np.uint32)
        np.cumsum(_ONES[packed], dtype=np.uint32, out=self._sums[1:])

    def of(self, places: Numbers) -> Numbers:
        byte = places // 8
        # bits are packed from the highest on: of the byte, those in front of the place
        front = self._packed[byte].astype(np.int64) >> (8 - places % 8)
        counts: Numbers = self._sums[byte].astype(np.int64) + _ONES[front]
        return counts
