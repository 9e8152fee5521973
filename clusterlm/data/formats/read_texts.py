"""Files that are one document each, and the pieces of a long one.

A piece is read from a mapped file, so that memory does not grow with the text. A packed text is
read whole: where its pieces begin would be known only after unpacking.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from clusterlm.data.files import SourceFile
from clusterlm.data.formats.chunks import UTF8_BOM, Chunk, Record
from clusterlm.data.formats.packed import Unpacked
from clusterlm.data.tokens.long_text import Cutter
from clusterlm.errors import DataError

MAX_UNPACKED_BYTES = 1 << 30


def read_texts(chunk: Chunk) -> Iterator[Record]:
    """A record for each file."""
    for i, file in enumerate(chunk.files, chunk.first_file):
        yield _decoded(i, _bytes_of(file), 0)


def read_piece(chunk: Chunk, cutter: Cutter) -> Record:
    """One piece, from the first cut behind `start` to the first behind `end`; perhaps empty."""
    path = chunk.files[0].path
    try:
        with path.open("rb") as handle:
            mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    with mapped as data:
        start = cutter.next_cut(data, chunk.start) if chunk.start else 0
        end = len(data) if chunk.is_last else cutter.next_cut(data, chunk.end)
        return _decoded(chunk.first_file, data[start:end], start)


def _bytes_of(file: SourceFile) -> bytes:
    parts, num_bytes = [], 0
    for block in Unpacked(file):
        parts.append(block)
        num_bytes += len(block)
        if file.packing and num_bytes > MAX_UNPACKED_BYTES:
            raise DataError(
                f"{file.path}: more than {MAX_UNPACKED_BYTES >> 20} MiB of text in one packed"
                " file; unpack it, so that it can be read in pieces"
            )
    return b"".join(parts)


def _decoded(file: int, data: bytes, offset: int) -> Record:
    if offset == 0:
        data = data.removeprefix(UTF8_BOM)
    try:
        return Record(file, offset, data.decode())
    except UnicodeDecodeError as error:
        found = f"not UTF-8 (byte 0x{data[error.start]:02x})"
        return Record(file, offset + error.start, problem=found)
