"""Files of lines, each a JSON object: byte ranges of plain files, stretches of packed ones.

A chunk owns the lines that begin in its range, so chunks can be read in any order. The hot loop
does little for each record: one split of 4 MiB, one call of orjson, one tuple.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import BinaryIO

import orjson

from clusterlm.data import chunks
from clusterlm.data.chunks import UTF8_BOM, Chunk, Record, Stretch
from clusterlm.data.files import SourceFile
from clusterlm.errors import DataError

MAX_LINE_BYTES = 1 << 30
_TAIL_BYTES = 1 << 16


def read_lines(chunk: Chunk) -> Iterator[Record]:
    """The records of the lines that begin in the chunk's range; blank lines are none."""
    data, offset = owned_bytes(chunk)
    return records_of_lines(data, offset, chunk.first_file)


def owned_bytes(chunk: Chunk) -> tuple[bytes, int]:
    """The lines that begin in the chunk's range, whole, and the offset of the first."""
    file, first = chunk.files[0], max(0, chunk.start - 1)
    try:
        with file.path.open("rb") as handle:
            handle.seek(first)
            data = handle.read(chunk.end - first)
            offset = chunk.start
            if chunk.start:
                # the line that runs across the start belongs to the chunk before
                begin = data.find(b"\n") + 1
                if not begin:
                    return b"", chunk.end
                data, offset = data[begin:], first + begin
            if data and not data.endswith(b"\n"):
                data += _rest_of_line(handle, file)
    except OSError as error:
        raise DataError(f"{file.path}: cannot be read ({error.strerror})") from error
    return data, offset


def lines_of(chunk: Chunk) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each line that is not blank, without its newline."""
    data, offset = owned_bytes(chunk)
    for line in _without_bom(data, offset).split(b"\n"):
        if line and not line.isspace():
            yield offset, line
        offset += len(line) + 1


def records_of_lines(data: bytes, offset: int, file: int) -> Iterator[Record]:
    """The records of whole lines; `offset` is where `data` begins in its file."""
    loads, error = orjson.loads, orjson.JSONDecodeError
    for line in _without_bom(data, offset).split(b"\n"):
        try:
            value = loads(line)
        except error as found:
            if line and not line.isspace():
                yield Record(file, offset, problem=_why_no_json(line, found))
        else:
            yield record_of(value, file, offset)
        offset += len(line) + 1


def record_of(value: object, file: int, offset: int) -> Record:
    """The record of a JSON value, which must be an object."""
    if type(value) is dict:
        return Record(file, offset, value)
    kind = _KINDS.get(type(value), "number")
    hint = "; write one object on each line" if kind == "list" else ""
    return Record(file, offset, problem=f"a JSON {kind}, not an object{hint}")


def line_stretches(file: SourceFile, blocks: Iterable[bytes]) -> Iterator[Stretch]:
    """The shortest stretches of whole lines of at least CHUNK_BYTES, but for those all blank."""
    held, offset = bytearray(), 0
    for block in blocks:
        # in what was held before, no stretch ends
        searched = len(held)
        held += block
        while end := held.find(b"\n", max(searched, chunks.CHUNK_BYTES - 1)) + 1:
            data = bytes(held[:end])
            del held[:end]
            if not data.isspace():
                yield partial(records_of_lines, data, offset)
            offset, searched = offset + end, 0
        if len(held) > MAX_LINE_BYTES:
            raise _too_long(file)
    if held and not held.isspace():
        yield partial(records_of_lines, bytes(held), offset)


def _without_bom(data: bytes, offset: int) -> bytes:
    # spaces, so that the offsets stay
    is_marked = offset == 0 and data.startswith(UTF8_BOM)
    return b"   " + data[3:] if is_marked else data


def _rest_of_line(handle: BinaryIO, file: SourceFile) -> bytes:
    parts, num_bytes = [], 0
    while block := handle.read(_TAIL_BYTES):
        end = block.find(b"\n") + 1
        parts.append(block[:end] if end else block)
        num_bytes += len(block)
        if end:
            break
        if num_bytes > MAX_LINE_BYTES:
            raise _too_long(file)
    return b"".join(parts)


def _too_long(file: SourceFile) -> DataError:
    return DataError(
        f"{file.path}: a line of more than {MAX_LINE_BYTES >> 20} MiB;"
        " write one object on each line"
    )


def _why_no_json(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as broken:
        return f"not UTF-8 (byte 0x{line[broken.start]:02x})"
    if line.strip() in (b"[", b"{"):
        return "JSON spread over several lines; write one object on each line"
    return f"not JSON ({error.msg} at column {error.colno})"


_KINDS = {list: "list", str: "string", bool: "boolean", type(None): "null"}
