"""Files that can be read from their beginning only: .csv, .tsv, JSON lists, packed lines.

Where a row of csv ends shows only to a reader that knows the quotes before it. Quoting is that of
RFC 4180 and is held to strictly: a stray quote is told and does not garble what follows in silence.
All values of csv are strings. A JSON list is read object by object, as long as it may be.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain

import orjson

from clusterlm.data.files import SourceFile
from clusterlm.data.formats import chunks, read_lines
from clusterlm.data.formats.chunks import UTF8_BOM, Record, Stretch
from clusterlm.data.formats.read_lines import line_stretches, record_of, too_long
from clusterlm.errors import DataError

MAX_VALUE_CHARS = 1 << 26
"""A quote left open takes no more than this of what follows; so does a broken JSON object. The csv
module holds 4 bytes for each."""

_SPACES = re.compile(r"[ \t\r\n]*")

Row = tuple[list[str], str | None]
"""The fields of a row, or why it is none."""


def row_stretches(file: SourceFile, blocks: Iterable[bytes]) -> Iterator[Stretch]:
    """The stretches of a file: each but the last of at least CHUNK_BYTES, and none is empty."""
    if file.suffix in (".csv", ".tsv"):
        return _csv_stretches(file, _TextLines(file, blocks))
    if file.suffix != ".json":
        return line_stretches(file, blocks)
    first, blocks = _first_byte(blocks)
    # what is called .json is a list as often as it is lines
    return (_list_stretches if first == b"[" else line_stretches)(file, blocks)


def records_in(file: SourceFile, blocks: Iterable[bytes], place: int) -> Iterator[Record]:
    """The records one by one, for somebody who wants the first ones only.

    Args:
        file: of rows or lines; packed or not.
        blocks: its bytes, unpacked; no more of them is taken than needed.
        place: of the file among those of its source.
    """
    if file.suffix in (".csv", ".tsv"):
        rows = _rows_of(file, _TextLines(file, blocks))
        header = _header_of(file, next(rows, None))
        for number, row in enumerate(rows):
            yield from _records_of_rows(header, [row], number, place)
        return
    first, blocks = _first_byte(blocks) if file.suffix == ".json" else (b"", blocks)
    if first == b"[":
        for number, value in enumerate(_Values(file, blocks)):
            yield from _records_of_values([value], number, place)
        return
    for stretch in line_stretches(file, blocks):
        yield from stretch(place)


def _first_byte(blocks: Iterable[bytes]) -> tuple[bytes, Iterable[bytes]]:
    """The first byte that is not blank, and all the blocks again."""
    start, rest = b"", iter(blocks)
    for block in rest:
        start += block
        found = start.removeprefix(UTF8_BOM).lstrip()
        # so much that is blank begins no list
        if found or len(start) > chunks.CHUNK_BYTES:
            return found[:1], chain([start], rest)
    return b"", [start]


def _csv_stretches(file: SourceFile, lines: _TextLines) -> Iterator[Stretch]:
    rows = _rows_of(file, lines)
    header = _header_of(file, next(rows, None))
    held: list[Row] = []
    number = begin = 0
    for row in rows:
        held.append(row)
        if lines.num_bytes - begin >= chunks.CHUNK_BYTES:
            yield partial(_records_of_rows, header, held, number)
            number, begin, held = number + len(held), lines.num_bytes, []
    if held:
        yield partial(_records_of_rows, header, held, number)


def _rows_of(file: SourceFile, lines: _TextLines) -> Iterator[Row]:
    first = ""
    for first in lines:
        lines.row_begin = lines.num_bytes
        if not first.isspace():
            break
    # process-wide; the default of 128 KiB is less than many a document
    csv.field_size_limit(MAX_VALUE_CHARS)
    reader = csv.reader(chain([first], lines), delimiter=_delimiter(file, first), strict=True)
    while True:
        lines.row_begin = lines.num_bytes
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield [], f"not CSV ({error})"
            continue
        found, lines.problem = lines.problem, None
        if row:
            yield row, found


def _delimiter(file: SourceFile, header: str) -> str:
    if file.suffix == ".tsv":
        return "\t"
    # spreadsheets write semicolons wherever the comma is a decimal point
    return "," if "," in header else next((c for c in ";\t" if c in header), ",")


def _header_of(file: SourceFile, row: Row | None) -> list[str]:
    names, problem = row or ([], None)
    twice = sorted({name for name in names if names.count(name) > 1})
    if problem is None and twice:
        problem = f"the column {twice[0]!r} is there twice"
    if problem is not None:
        raise DataError(f"{file.path}: the first row must name the columns: {problem}")
    return names


def _records_of_rows(
    header: list[str], rows: list[Row], number: int, file: int
) -> Iterator[Record]:
    width = len(header)
    for offset, (row, problem) in enumerate(rows, number):
        if problem is None and len(row) != width:
            problem = f"{len(row)} fields, and the header has {width}"
        if problem is None:
            yield Record(file, offset, dict(zip(header, row, strict=True)))
        else:
            yield Record(file, offset, problem=problem)


class _TextLines:
    """Lines of text, with their newlines.

    Attributes:
        num_bytes: of the lines given so far.
        row_begin: how many it were when the reader of rows began with this one.
        problem: what was wrong with one of the lines since it was last set to None.
    """

    def __init__(self, file: SourceFile, blocks: Iterable[bytes]) -> None:
        self._lines = _lines_of(file, blocks)
        self.num_bytes = self.row_begin = 0
        self.problem: str | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.num_bytes - self.row_begin > read_lines.MAX_LINE_BYTES:
            # many a field, each short enough; the reader of rows begins anew behind it
            raise csv.Error(f"a row of more than {read_lines.MAX_LINE_BYTES >> 20} MiB")
        line = next(self._lines)
        if not self.num_bytes:
            line = line.removeprefix(UTF8_BOM)
        self.num_bytes += len(line)
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            self.problem = f"not UTF-8 (byte 0x{line[error.start]:02x})"
            return line.decode(errors="replace")


def _lines_of(file: SourceFile, blocks: Iterable[bytes]) -> Iterator[bytes]:
    # of the line that goes on behind its block; joined once, however many there are
    parts: list[bytes] = []
    num_bytes = 0
    for block in blocks:
        first, *lines = block.split(b"\n")
        parts.append(first)
        num_bytes += len(first)
        if num_bytes > read_lines.MAX_LINE_BYTES:
            raise too_long(file)
        if lines:
            yield b"".join(parts) + b"\n"
            parts = [lines.pop()]
            num_bytes = len(parts[0])
        for line in lines:
            yield line + b"\n"
    if num_bytes:
        yield b"".join(parts)


def _list_stretches(file: SourceFile, blocks: Iterable[bytes]) -> Iterator[Stretch]:
    held: list[str] = []
    number = size = 0
    for value in _Values(file, blocks):
        held.append(value)
        size += len(value)
        if size >= chunks.CHUNK_BYTES:
            yield partial(_records_of_values, held, number)
            number, size, held = number + len(held), 0, []
    if held:
        yield partial(_records_of_values, held, number)


def _records_of_values(values: list[str], number: int, file: int) -> Iterator[Record]:
    for offset, value in enumerate(values, number):
        try:
            yield record_of(orjson.loads(value), file, offset)
        except orjson.JSONDecodeError as error:
            yield Record(file, offset, problem=f"not JSON ({error.msg})")


class _Values:
    """The texts of the values of one JSON list, of which not more is held than needed."""

    def __init__(self, file: SourceFile, blocks: Iterable[bytes]) -> None:
        self._file = file
        self._blocks = iter(blocks)
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._at, self._count = "", 0, 0

    def __iter__(self) -> Iterator[str]:
        self._take()
        if self._next_mark() == "]":
            self._take()
        else:
            mark = ","
            while mark == ",":
                yield self._value()
                self._count += 1
                mark = self._take()
            if mark != "]":
                raise self._broken(f"{mark!r} in place of a comma" if mark else "it ends too early")
        if self._next_mark():
            raise self._broken("there is something behind the list")

    def _value(self) -> str:
        if not self._next_mark():
            raise self._broken("it ends too early")
        while True:
            size = len(self._text) - self._at
            try:
                _, end = self._scan(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if size > MAX_VALUE_CHARS:
                    much = f"a value of more than {MAX_VALUE_CHARS >> 20} Mi characters"
                    raise self._broken(f"{much}, or {error}") from error
                # cut off, or broken; read twice as much, so that the work stays linear
                if not self._read(min(size, MAX_VALUE_CHARS + 1 - size)):
                    raise self._broken(str(error)) from error
                continue
            # a number may go on behind what was read
            if end < len(self._text) or not self._read(1):
                value, self._at = self._text[self._at : end], end
                return value

    def _take(self) -> str:
        mark = self._next_mark()
        self._at += len(mark)
        return mark

    def _next_mark(self) -> str:
        while True:
            found = _SPACES.match(self._text, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read(1):
                return ""

    def _read(self, num_chars: int) -> bool:
        """Read at least so much more, or to the end; whether there was any."""
        parts = [self._text[self._at :]]
        self._text = ""
        held, wanted = len(parts[0]), num_chars
        for block in self._blocks:
            try:
                parts.append(self._decode(block))
            except UnicodeDecodeError as error:
                raise self._broken(f"not UTF-8 (byte 0x{error.object[error.start]:02x})") from error
            wanted -= len(parts[-1])
            if wanted <= 0:
                break
        self._text, self._at = "".join(parts), 0
        return len(self._text) > held

    def _broken(self, reason: str) -> DataError:
        return DataError(
            f"{self._file.path}: a broken JSON list: {reason}, behind its first {self._count}"
            " values; what follows cannot be told apart"
        )
