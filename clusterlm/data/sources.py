"""Reads chunks: files -> units -> chunks -> records with their place.

    files.py, hub.py     which files a source means
    units.py             files -> units (a shard each) -> chunks
    chunks.py            Chunk, Record
    read_*.py            a chunk -> its records, by format

Memory stays constant: lines are read 4 MiB at a time, a long text piece by piece from a mapped
file, tables in batches. A record that cannot be read is given with its problem in words; whether
that stops the run is decided elsewhere. A file that cannot be read on (a broken stream) is a
DataError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from clusterlm.data.files import Format, SourceFile
from clusterlm.data.formats.chunks import CHUNK_BYTES, Chunk, Record
from clusterlm.data.formats.packed import Unpacked
from clusterlm.data.formats.read_lines import lines_of, read_lines
from clusterlm.data.formats.read_tables import read_table
from clusterlm.data.formats.read_texts import read_piece, read_texts
from clusterlm.data.formats.stretches import bytes_taken, read_stretch
from clusterlm.data.formats.units import Unit, units_of
from clusterlm.data.tokens.long_text import Cutter

__all__ = [
    "CHUNK_BYTES",
    "Chunk",
    "Cutter",
    "Record",
    "Unit",
    "bytes_taken",
    "count_records",
    "lines_of",
    "place_of",
    "read_records",
    "read_unit",
    "units_of",
]


def read_records(chunk: Chunk, cutter: Cutter | None = None) -> Iterator[Record]:
    """The records of a chunk, in order; one for a piece of a long text, perhaps empty.

    Args:
        chunk: from `units_of`. One that `is_open` and gives no record is behind its file's end.
        cutter: where long texts may be cut; needed for pieces only.
    """
    if chunk.is_piece:
        assert cutter is not None, "without a cutter, units_of must be told cuts_texts=False"
        return iter([read_piece(chunk, cutter)])
    if chunk.is_open:
        return read_stretch(chunk)
    return READERS[chunk.format](chunk)


def read_unit(unit: Unit, cutter: Cutter | None = None) -> Iterator[Record]:
    """The records of a unit, in order, in this process."""
    ended: set[int] = set()
    for chunk in unit.chunks(ended):
        is_empty = True
        for record in read_records(chunk, cutter):
            is_empty = False
            yield record
        if chunk.is_open and is_empty:
            ended.add(chunk.first_file)


def count_records(chunk: Chunk) -> int:
    """How many records a chunk holds, read or not; without parsing where that can be."""
    if chunk.is_piece:
        # the text counts with its first piece
        return int(chunk.start == 0)
    if chunk.is_open:
        return sum(1 for _ in read_stretch(chunk))
    if chunk.format == "lines":
        return sum(1 for _ in lines_of(chunk))
    return len(chunk.files) if chunk.format == "text" else chunk.end - chunk.start


def place_of(files: Sequence[SourceFile], file: int, offset: int) -> str:
    """Where a record stands, for people: `path:line`, or `path, row N`; lines are counted now."""
    found = files[file]
    if found.format in ("text", "lines"):
        # a text as a whole has no line
        is_whole = found.format == "text" and not offset
        return str(found.path) if is_whole else f"{found.path}:{_line_at(found, offset)}"
    return f"{found.path}, row {offset + 1}"


def _line_at(file: SourceFile, offset: int) -> int:
    line, left = 1, offset
    for block in Unpacked(file):
        line += block.count(b"\n", 0, max(0, left))
        left -= len(block)
        if left <= 0:
            break
    return line


READERS: dict[Format, Callable[[Chunk], Iterator[Record]]] = {
    "text": read_texts,
    "lines": read_lines,
    "parquet": read_table,
    "arrow": read_table,
}
