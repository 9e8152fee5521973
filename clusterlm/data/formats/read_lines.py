"""Files of lines, each a JSON object or a text: byte ranges, or stretches where they are packed.

A chunk owns the lines that begin in its range, so chunks can be read in any order. The hot loop
does little for each record: one split of 4 MiB, one call of orjson, one tuple.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO

import orjson

from clusterlm.data.files import SourceFile
from clusterlm.data.formats import chunks
from clusterlm.data.formats.chunks import UTF8_BOM, Chunk, Record, Stretch
from clusterlm.errors import DataError

MAX_LINE_BYTES = 1 << 27
"""A longer line is an error: a small packed file may hold one that fills the memory."""

BUFFER_BYTES = 1 << 17


def read_lines(chunk: Chunk) -> Iterator[Record]:
    """The records of the lines that begin in the chunk's range; blank lines are none."""
    with _lines_from(chunk) as (lines, offset):
        records = _texts if chunk.files[0].has_text_lines else _records
        yield from records(lines, offset, chunk.first_file)


def lines_of(chunk: Chunk) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each of these lines, with its newline."""
    with _lines_from(chunk) as (lines, offset):
        for line in lines:
            if not line.isspace():
                yield offset, line
            offset += len(line)


def _records(lines: Iterable[bytes], offset: int, file: int) -> Iterator[Record]:
    loads, error = orjson.loads, orjson.JSONDecodeError
    # what Record(...) does, at a third of its price: this loop is the floor of all reading
    new = tuple.__new__
    for line in lines:
        try:
            value = loads(line)
        except error:
            yield from _records_of_odd_line(line, offset, file)
        else:
            if type(value) is dict:
                yield new(Record, (file, offset, value, None, ""))
            else:
                yield record_of(value, file, offset)
        offset += len(line)


def _records_of_odd_line(line: bytes, offset: int, file: int) -> Iterator[Record]:
    body = line.removeprefix(UTF8_BOM) if offset == 0 else line
    if body and not body.isspace():
        try:
            yield record_of(orjson.loads(body), file, offset)
        except orjson.JSONDecodeError as error:
            yield Record(file, offset, problem=_why_no_json(body, error))


def _texts(lines: Iterable[bytes], offset: int, file: int) -> Iterator[Record]:
    """Each line as it stands, without its end."""
    for line in lines:
        text = line.rstrip(b"\r\n")
        if offset == 0:
            text = text.removeprefix(UTF8_BOM)
        try:
            if text and not text.isspace():
                yield Record(file, offset, text.decode())
        except UnicodeDecodeError as error:
            yield Record(file, offset, problem=_no_utf8(text, error))
        offset += len(line)


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
    is_text = file.has_text_lines
    for block in blocks:
        # in what was held before, no stretch ends
        searched = len(held)
        held += block
        while end := held.find(b"\n", max(searched, chunks.CHUNK_BYTES - 1)) + 1:
            data = bytes(held[:end])
            del held[:end]
            if not _is_blank(data, offset):
                yield partial(_records_of_bytes, data, offset, is_text)
            offset, searched = offset + end, 0
        if len(held) > MAX_LINE_BYTES:
            raise too_long(file)
    if held and not _is_blank(held, offset):
        yield partial(_records_of_bytes, bytes(held), offset, is_text)


def _is_blank(data: bytes | bytearray, offset: int) -> bool:
    # a stretch without records would be taken for the end
    body = data if offset else data.removeprefix(UTF8_BOM)
    return not body or body.isspace()


def _records_of_bytes(data: bytes, offset: int, is_text: bool, file: int) -> Iterator[Record]:
    """The records of whole lines; `offset` is where `data` begins in its file."""
    return (_texts if is_text else _records)(io.BytesIO(data), offset, file)


@contextmanager
def _lines_from(chunk: Chunk) -> Iterator[tuple[Iterator[bytes], int]]:
    """The lines from the first that begins in the chunk on, and the offset of that one."""
    file, offset = chunk.files[0], chunk.start
    try:
        with file.path.open("rb", buffering=BUFFER_BYTES) as handle:
            if offset:
                # the line that runs across the start belongs to the chunk before
                handle.seek(offset - 1)
                while (line := handle.readline(BUFFER_BYTES)) and offset <= chunk.end:
                    offset += len(line)
                    if line.endswith(b"\n"):
                        break
                offset -= 1
            yield _lines_until(chunk.end, offset, handle, file), offset
    except OSError as error:
        raise DataError(f"{file.path}: cannot be read ({error.strerror})") from error


def _lines_until(end: int, offset: int, handle: BinaryIO, file: SourceFile) -> Iterator[bytes]:
    while offset < end and (line := handle.readline(MAX_LINE_BYTES)):
        offset += len(line)
        if len(line) == MAX_LINE_BYTES:
            raise too_long(file)
        yield line


def too_long(file: SourceFile) -> DataError:
    """The error of a line of more than MAX_LINE_BYTES."""
    if file.format == "rows":
        return DataError(f"{file.path}: a line of more than {MAX_LINE_BYTES >> 20} MiB")
    what = "document" if file.has_text_lines else "object"
    return DataError(
        f"{file.path}: a line of more than {MAX_LINE_BYTES >> 20} MiB; write one {what} on each"
        " line"
    )


def _why_no_json(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as broken:
        return _no_utf8(line, broken)
    if line.strip() in (b"[", b"{"):
        return "JSON spread over several lines; write one object on each line"
    return f"not JSON ({error.msg} at column {error.colno})"


def _no_utf8(line: bytes, error: UnicodeDecodeError) -> str:
    return f"not UTF-8 (byte 0x{line[error.start]:02x})"


_KINDS = {list: "list", str: "string", bool: "boolean", type(None): "null"}
