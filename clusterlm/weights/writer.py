"""Weights written tensor by tensor, in shards, without torch.

At most `BUFFER_BYTES` and the tensor that is being added are in memory: the header, which stands in
front and is known only at the end, gets its place reserved and is filled up with spaces, as the
format allows. Files have names aside until `finish`; the index comes last, so half a model is never
taken for one.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy.typing as npt

from clusterlm.errors import WeightsError
from clusterlm.weights.numbers import NUM_BYTES, encode

MAX_SHARD_BYTES = 5 * 10**9
BUFFER_BYTES = 64 << 20
"""A shard up to this size is written with a header of exactly its length."""
HEADER_BYTES = 1 << 20
"""Room for the header of a larger one: some thousand tensors; then another shard begins."""
_ENTRY_BYTES = 160
"""Of a tensor in the header, besides its name: type, shape and place, generously."""

Bytes = bytes | bytearray | memoryview


@dataclass
class _Shard:
    path: Path
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_bytes: int = 0
    header_bytes: int = 0
    buffer: list[Bytes] = field(default_factory=list)
    handle: BinaryIO | None = None
    is_closed: bool = False


class WeightsWriter:
    """Writes the weights of a folder, one tensor after the other.

    Example:
        with Weights.open(old) as weights:
            writer = WeightsWriter(new)
            for name in weights.names:
                writer.add(name, weights.raw(name), weights.dtype(name), weights.shape(name))
            writer.finish()
    """

    def __init__(
        self, folder: Path, max_shard_bytes: int = MAX_SHARD_BYTES, stem: str = "model"
    ) -> None:
        self.folder, self.stem = folder, stem
        self._max = max_shard_bytes
        self._shards: list[_Shard] = []
        self._names: set[str] = set()

    def add(
        self,
        name: str,
        values: npt.NDArray[Any] | Bytes,
        dtype: str | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        """Write a tensor.

        Args:
            name: of the tensor; each once.
            values: an array, which is rounded to `dtype`; or the bytes as they shall lie there.
            dtype: as safetensors writes it; left out, that of the array.
            shape: of the bytes; an array has its own.
        """
        data, kind, extent = encode(values, dtype, shape)
        if math.prod(extent) * NUM_BYTES[kind] != len(data):
            raise WeightsError(f"{name}: {len(data)} bytes are no {kind} of shape {extent}")
        if name in self._names:
            raise WeightsError(f"{name}: was written before")
        self._names.add(name)
        shard = self._shard_for(name, len(data))
        end = shard.num_bytes + len(data)
        offsets = [shard.num_bytes, end]
        shard.entries[name] = {"dtype": kind, "shape": list(extent), "data_offsets": offsets}
        shard.header_bytes += len(name) + _ENTRY_BYTES
        shard.num_bytes = end
        self._put(shard, data)

    def finish(self) -> dict[str, int]:
        """Give the files their names; the index, or the only file, comes last.

        Returns:
            Bytes of each file, by name.
        """
        for shard in self._shards:
            _close(shard)
        number = len(self._shards)
        places: dict[str, str] = {}
        for k, shard in enumerate(self._shards, start=1):
            name = f"{self.stem}.safetensors"
            if number > 1:
                name = f"{self.stem}-{k:05}-of-{number:05}.safetensors"
            os.replace(shard.path, self.folder / name)
            places |= dict.fromkeys(shard.entries, name)
        names = sorted(set(places.values()))
        if number > 1:
            total = sum(shard.num_bytes for shard in self._shards)
            names.append(self._write_index(places, total))
        return {name: (self.folder / name).stat().st_size for name in names}

    def _write_index(self, places: dict[str, str], total: int) -> str:
        name = f"{self.stem}.safetensors.index.json"
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        aside = self.folder / f".{name}"
        with aside.open("w", encoding="utf-8") as handle:
            json.dump(index, handle, indent=2)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(aside, self.folder / name)
        return name

    def _shard_for(self, name: str, num_bytes: int) -> _Shard:
        last = self._shards[-1] if self._shards else None
        if last is not None and last.num_bytes + num_bytes <= self._max:
            has_room = last.header_bytes + len(name) + 2 * _ENTRY_BYTES < HEADER_BYTES
            if has_room:
                return last
        if last is not None:
            _close(last)
        path = self.folder / f".{self.stem}-{len(self._shards):05}.writing"
        self._shards.append(_Shard(path))
        return self._shards[-1]

    def _put(self, shard: _Shard, data: Bytes) -> None:
        if shard.handle is None and shard.num_bytes > BUFFER_BYTES:
            shard.handle = shard.path.open("wb")
            shard.handle.seek(8 + HEADER_BYTES)
            for piece in shard.buffer:
                shard.handle.write(piece)
            shard.buffer = []
        if shard.handle is None:
            # a view of a mapped file may be gone before the shard is written
            shard.buffer.append(bytes(data))
        else:
            shard.handle.write(data)


def _close(shard: _Shard) -> None:
    if shard.is_closed:
        return
    header = {"__metadata__": {"format": "pt"}, **shard.entries}
    text = json.dumps(header, separators=(",", ":")).encode()
    length = HEADER_BYTES if shard.handle else -(-len(text) // 8) * 8
    assert len(text) <= length, "the header has outgrown its place"
    with shard.handle or shard.path.open("wb") as handle:
        handle.seek(0)
        handle.write(length.to_bytes(8, "little") + text.ljust(length))
        for piece in shard.buffer:
            handle.write(piece)
        handle.flush()
        os.fsync(handle.fileno())
    shard.handle, shard.buffer, shard.is_closed = None, [], True
