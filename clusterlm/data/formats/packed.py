"""The bytes of a file as they were before gzip or zstd, in blocks, with constant memory.

Several members (gzip) or frames (zstd) one behind the other are one file, as the tools have it.
A stream that ends too early or fails its checksum is an error, never a shorter file.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clusterlm.data.files import SourceFile
from clusterlm.errors import DataError

BLOCK_BYTES = 1 << 20

_PACKED_BYTES = 1 << 16
"""Fed at once: zstandard gives back all that it unpacks to, however much."""

_TEST = {"gz": "gzip -t", "zst": "zstd -t"}


class Unpacked:
    """Iterates over the blocks of a file, unpacked when it is packed.

    Attributes:
        num_read: bytes of the file itself that were taken so far.
    """

    def __init__(self, file: SourceFile) -> None:
        self._path = file.path
        self._packing = file.packing
        self.num_read = 0

    def __iter__(self) -> Iterator[bytes]:
        if self._packing == "gz":
            return self._gunzip()
        if self._packing == "zst":
            return self._unzstd()
        return self._blocks(BLOCK_BYTES)

    def _blocks(self, size: int) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as handle:
                while block := handle.read(size):
                    self.num_read += len(block)
                    yield block
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error.strerror})") from error

    def _gunzip(self) -> Iterator[bytes]:
        unpacker = None
        try:
            for block in self._blocks(_PACKED_BYTES):
                while block:
                    if unpacker is None or unpacker.eof:
                        # tapes and some tools fill up with zeros behind a member
                        block = block if unpacker is None else block.lstrip(b"\0")
                        if not block:
                            break
                        unpacker = zlib.decompressobj(wbits=31)
                    yield unpacker.decompress(block, BLOCK_BYTES)
                    block = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            # what the last block unpacks to may be more than was taken of it
            while unpacker is not None and not unpacker.eof:
                if not (out := unpacker.decompress(b"", BLOCK_BYTES)):
                    raise self._broken("it ends too early")
                yield out
        except zlib.error as error:
            raise self._broken(str(error)) from error

    def _unzstd(self) -> Iterator[bytes]:
        zstandard = _zstandard(self._path)
        # as `zstd --long=31` writes at most
        context = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        unpacker = None
        try:
            for block in self._blocks(_PACKED_BYTES):
                while block:
                    if unpacker is None or unpacker.eof:
                        unpacker = context.decompressobj()
                    yield unpacker.decompress(block)
                    block = unpacker.unused_data if unpacker.eof else b""
        except zstandard.ZstdError as error:
            raise self._broken(str(error)) from error
        if unpacker is not None and not unpacker.eof:
            raise self._broken("it ends too early")

    def _broken(self, reason: str) -> DataError:
        return DataError(
            f"{self._path}: a broken {self._packing} stream ({reason});"
            f" `{_TEST[str(self._packing)]} FILE` tells the same; fetch or pack the file again"
        )


def _zstandard(path: Path) -> Any:
    try:
        # imported here: most files are not packed, and a login node need not have it
        import zstandard
    except ImportError as error:
        raise DataError(
            f"{path}: to read .zst the package zstandard is needed; pip install zstandard"
        ) from error
    return zstandard
