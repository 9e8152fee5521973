"""The bytes of a file as they were before gzip or zstd, in blocks, with constant memory.

Several members (gzip) or frames (zstd) one behind the other are one file, as the tools have it.
A stream that ends too early or fails its checksum is an error, never a shorter file.

However much a few bytes unpack to, it comes in steps: gzip is told how much to give; zstandard
cannot be, or (`stream_reader`) takes a file that was cut off for a shorter one. So zstd is fed one
of the format's own blocks at a time, of which each unpacks to 128 KiB at most (RFC 8878, 3.1.1.2).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from clusterlm.data.files import SourceFile
from clusterlm.errors import DataError

BLOCK_BYTES = 1 << 20

_PACKED_BYTES = 1 << 16
"""Of gzip, fed at once."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_MAGIC = range(0x184D2A50, 0x184D2A60)
_RLE_BLOCK = 1

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
            return _joined(self._gunzip())
        if self._packing == "zst":
            return _joined(self._unzstd())
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
        try:
            with self._path.open("rb", buffering=BLOCK_BYTES) as handle:
                while magic := handle.read(4):
                    self.num_read += len(magic)
                    if int.from_bytes(magic, "little") in _SKIPPABLE_MAGIC:
                        self._pass_over(handle)
                        continue
                    unpacker = context.decompressobj()
                    for block in self._zstd_blocks(zstandard, magic, handle):
                        yield unpacker.decompress(block)
                    if not unpacker.eof:
                        raise self._broken("a frame without its end")
        except zstandard.ZstdError as error:
            raise self._broken(str(error)) from error
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error.strerror})") from error

    def _zstd_blocks(self, zstandard: Any, magic: bytes, handle: BinaryIO) -> Iterator[bytes]:
        """The header of a frame, its blocks, and its checksum when it has one."""
        if magic != _ZSTD_MAGIC:
            raise self._broken("no zstd frame begins there")
        descriptor = self._take(handle, 1)
        size = zstandard.frame_header_size(magic + descriptor + bytes(13))
        yield magic + descriptor + self._take(handle, size - 5)
        is_last = False
        while not is_last:
            head = self._take(handle, 3)
            # 1 bit: is it the last; 2 bits: its type; 21 bits: its size
            bits = int.from_bytes(head, "little")
            is_last = bool(bits & 1)
            yield head + self._take(handle, 1 if bits >> 1 & 3 == _RLE_BLOCK else bits >> 3)
        if descriptor[0] & 4:
            yield self._take(handle, 4)

    def _pass_over(self, handle: BinaryIO) -> None:
        left = int.from_bytes(self._take(handle, 4), "little")
        while left:
            left -= len(self._take(handle, min(left, BLOCK_BYTES)))

    def _take(self, handle: BinaryIO, num_bytes: int) -> bytes:
        data = handle.read(num_bytes)
        self.num_read += len(data)
        if len(data) < num_bytes:
            raise self._broken("it ends too early")
        return data

    def _broken(self, reason: str) -> DataError:
        return DataError(
            f"{self._path}: a broken {self._packing} stream ({reason});"
            f" `{_TEST[str(self._packing)]} FILE` tells the same; fetch or pack the file again"
        )


def _joined(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks of about BLOCK_BYTES, however small the parts are."""
    held: list[bytes] = []
    num_bytes = 0
    for part in parts:
        held.append(part)
        num_bytes += len(part)
        if num_bytes >= BLOCK_BYTES:
            yield b"".join(held)
            held, num_bytes = [], 0
    if num_bytes:
        yield b"".join(held)


def _zstandard(path: Path) -> Any:
    try:
        # imported here: most files are not packed, and a login node need not have it
        import zstandard
    except ImportError as error:
        raise DataError(
            f"{path}: to read .zst the package zstandard is needed; pip install zstandard"
        ) from error
    return zstandard
