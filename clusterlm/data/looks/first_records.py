"""The first records of a source, at a bounded price: for a look before anything is submitted.

No more than MOST_BYTES are read, unpacked, of no more than MOST_FILES files. What is cut off there
is not judged: a long text, a first record of a megabyte.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from clusterlm.data.files import SourceFile
from clusterlm.data.formats.chunks import UTF8_BOM, Chunk, Record
from clusterlm.data.formats.packed import Unpacked
from clusterlm.data.formats.read_rows import records_in
from clusterlm.errors import DataError

MOST_BYTES = 4 << 20
"""Of all files together; a file of records may take a quarter."""
MOST_FILES = 20


@dataclass
class FirstRecords:
    """What was read.

    Attributes:
        is_all: the source holds no further record.
        is_broken_off: what comes next was too long to be looked at.
    """

    records: list[Record] = field(default_factory=list)
    is_all: bool = True
    is_broken_off: bool = False


def first_records(files: Sequence[SourceFile], limit: int) -> FirstRecords:
    """At most `limit` records, in reading order.

    Raises:
        DataError: a file cannot be read.
        ModuleNotFoundError: the library that reads such files is not here.
    """
    found, left = FirstRecords(), MOST_BYTES
    for place, file in enumerate(files):
        if place == MOST_FILES or len(found.records) == limit or left <= 0:
            found.is_all = False
            break
        blocks = _Blocks(file, min(left, MOST_BYTES // 4))
        records, is_whole = _READERS.get(file.format, _rows)(file, blocks, place, limit)
        found.records += records[: limit - len(found.records)]
        left -= blocks.num_bytes
        if not is_whole:
            found.is_all, found.is_broken_off = False, not records
            break
    return found


class _Blocks:
    """The blocks of a file up to a number of bytes; `is_cut` where there were more."""

    def __init__(self, file: SourceFile, most: int) -> None:
        self._file, self._most = file, most
        self.num_bytes = 0
        self.is_cut = False

    def __iter__(self) -> Iterator[bytes]:
        for block in Unpacked(self._file):
            if self.num_bytes >= self._most:
                self.is_cut = True
                return
            self.num_bytes += len(block)
            yield block


def _text(file: SourceFile, blocks: _Blocks, place: int, limit: int) -> tuple[list[Record], bool]:
    data = b"".join(blocks).removeprefix(UTF8_BOM)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data, final=not blocks.is_cut)
    except UnicodeDecodeError as error:
        found = f"not UTF-8 (byte 0x{data[error.start]:02x})"
        return [Record(place, error.start, problem=found)], True
    return ([], False) if blocks.is_cut else ([Record(place, 0, text)], True)


def _rows(file: SourceFile, blocks: _Blocks, place: int, limit: int) -> tuple[list[Record], bool]:
    records: list[Record] = []
    reading = records_in(file, blocks, place)
    try:
        # one more than wanted: only what another one follows is known to be whole
        records += islice(reading, limit + 1)
    except DataError:
        if not blocks.is_cut:
            raise
    if len(records) > limit:
        return records[:limit], False
    return (records[:-1], False) if blocks.is_cut else (records, True)


def _table(file: SourceFile, blocks: _Blocks, place: int, limit: int) -> tuple[list[Record], bool]:
    # imported here: files of tables alone need it
    from clusterlm.data.formats.read_tables import read_table, row_ranges

    ranges = row_ranges(file)
    if not ranges:
        return [], True
    end = min(limit, ranges[0].end)
    records = list(read_table(Chunk(0, file.format, (file,), place, 0, end)))
    return records, end == ranges[-1].end


_READERS = {"text": _text, "parquet": _table, "arrow": _table}
