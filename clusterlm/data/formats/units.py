"""Files of a source -> units, each the chunks of one shard, in reading order.

    files   a.txt b.txt | big.jsonl                          | c.csv  | d.parquet
    parts   [a b]       | [0, 1 GiB) [1, 2 GiB) [2, 2.3 GiB) | open   | whole
    units   1           | 2          3          4            | 5      | 6

Units are filled in order up to UNIT_BYTES, a file's ranges lie on a grid from its beginning, and
small texts are grouped from the first on. So what is appended to the last file, or comes in files
behind it, leaves all but the last unit what it was.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import xxhash

from clusterlm.data.files import SourceFile
from clusterlm.data.formats import chunks
from clusterlm.data.formats.chunks import Chunk
from clusterlm.data.formats.slices import parse_split
from clusterlm.data.hashes import HashMemo, hash_file, hash_range
from clusterlm.errors import DataError
from clusterlm.spec.sources import Source

UNIT_BYTES = 1 << 30
"""Bytes of the sources' files in one unit; more only where a file cannot be parted."""

PACKED_RATIO = 4
"""A small packed text counts as so many times its size."""


@dataclass(frozen=True)
class Part:
    """Consecutive chunks of one kind.

    Attributes:
        first_file: place among the files of the source.
        num_files: more than one only for a group of small texts, which is one chunk.
        start: for lines, and for the pieces of a text, the first byte; for tables, the first row.
        end: behind the last; for a group, a whole table and an open file, 0.
        num_bytes: of the files.
    """

    first_file: int
    num_files: int = 1
    start: int = 0
    end: int = 0
    num_bytes: int = 0
    is_pieces: bool = False


@dataclass(frozen=True)
class Unit:
    """Consecutive chunks of one source that make one shard.

    Attributes:
        source: place of the source in the order of reading.
        first_file: place of `files[0]` among the files of the source.
    """

    source: int
    first_file: int
    files: tuple[SourceFile, ...]
    parts: tuple[Part, ...]

    @property
    def num_bytes(self) -> int:
        """Size of what it reads, as it lies on disk."""
        return sum(part.num_bytes for part in self.parts)

    @property
    def is_open_ended(self) -> bool:
        """Whether the number of chunks shows only in reading."""
        return any(self._file(part.first_file).is_sequential for part in self.parts)

    def chunks(self, ended: Container[int] = ()) -> Iterator[Chunk]:
        """The chunks, in order.

        Args:
            ended: an open-ended file has chunks without end until its place (`first_file` of its
                chunks) is put in here: when one of them came back without records.
        """
        for part in self.parts:
            yield from self._chunks_of(part, ended)

    def key_parts(self, memo: HashMemo) -> list[str]:
        """What the records depend on: the content of each part, and how it is read."""
        return [key for part in self.parts for key in self._keys_of(part, memo)]

    def _file(self, place: int) -> SourceFile:
        return self.files[place - self.first_file]

    def _chunks_of(self, part: Part, ended: Container[int]) -> Iterator[Chunk]:
        file = self._file(part.first_file)
        place = (self.source, file.format, (file,), part.first_file)
        if file.is_sequential:
            index = 0
            while part.first_file not in ended:
                yield Chunk(*place, index=index)
                index += 1
        elif file.format in ("parquet", "arrow"):
            # imported here: files of tables alone need it
            from clusterlm.data.formats.read_tables import row_ranges

            for index, (start, end, num_bytes) in enumerate(row_ranges(file)):
                if part.start <= start and (start < part.end or not part.end):
                    yield Chunk(*place, start, end, index, num_bytes=num_bytes)
        elif part.is_pieces or file.format == "lines":
            step = chunks.CHUNK_BYTES
            for start in range(part.start, part.end, step):
                end = min(start + step, part.end)
                yield Chunk(
                    *(*place, start, end, start // step),
                    is_piece=part.is_pieces,
                    is_last=end == file.num_bytes,
                    num_bytes=end - start,
                )
        else:
            begin = part.first_file - self.first_file
            group = self.files[begin : begin + part.num_files]
            yield Chunk(self.source, "text", group, part.first_file, num_bytes=part.num_bytes)

    def _keys_of(self, part: Part, memo: HashMemo) -> Iterator[str]:
        begin = part.first_file - self.first_file
        for file in self.files[begin : begin + part.num_files]:
            how = "pieces" if part.is_pieces else file.how_read
            if file.format == "lines" and not file.packing:
                content = memo.hash_of_range(file.path, part.start, part.end)
                edges = _edges(file, part.start, part.end)
                yield f"{how} {part.start}-{part.end} {content} {edges}"
            else:
                yield f"{how} {part.start}-{part.end} {memo.hash_of(file.path)}"


def units_of(
    files: Sequence[SourceFile], source: int, *, cuts_texts: bool = True, in_order: bool = False
) -> list[Unit]:
    """The units of one source, in reading order; empty files of records are in none.

    Args:
        files: of the source, as `list_files` or `hub.resolve_files` gave them.
        source: place of the source in the order of reading.
        cuts_texts: whether there is a Cutter; without one a long text is one chunk.
        in_order: make it one unit, because its records are to be counted (`counts_records`).
    """
    units: list[list[Part]] = []
    room = 0
    for part in _parts_of(files, cuts_texts=cuts_texts):
        is_open = files[part.first_file].is_sequential
        if not units or (not in_order and (is_open or part.num_bytes > room)):
            units.append([])
            room = UNIT_BYTES
        units[-1].append(part)
        # what follows an open-ended file begins anew
        room = -1 if is_open else room - part.num_bytes
    return [_unit_of(source, files, parts) for parts in units]


def chunk_key(chunk: Chunk) -> str | None:
    """What the records of a chunk depend on: its own bytes, read for it, and how they are read.

    None where they cannot be told from the rest of the file: tables, packed lines, pieces of texts.
    """
    if chunk.is_piece or chunk.is_open or chunk.format not in ("lines", "text"):
        return None
    if chunk.format == "text":
        return " ".join(f"{file.how_read} {hash_file(file.path)}" for file in chunk.files)
    file = chunk.files[0]
    content = hash_range(file.path, chunk.start, chunk.end)
    edges = _edges(file, chunk.start, chunk.end)
    return f"{file.how_read} {chunk.start}-{chunk.end} {content} {edges}"


def counts_records(source: Source) -> bool:
    """Whether only some records are taken, so that they must be counted in order."""
    return source.max_documents is not None or parse_split(source.split)[1] is not None


def _parts_of(files: Sequence[SourceFile], *, cuts_texts: bool) -> Iterator[Part]:
    group: list[int] = []
    weight = 0
    for i, file in enumerate(files):
        size = file.num_bytes * (PACKED_RATIO if file.packing else 1)
        is_small = file.format == "text" and size <= chunks.CHUNK_BYTES
        if group and not (is_small and weight + size <= chunks.CHUNK_BYTES):
            yield _group_of(files, group)
            group, weight = [], 0
        if is_small:
            group.append(i)
            weight += size
        else:
            yield from _parts_of_large(i, file, cuts_texts=cuts_texts)
    if group:
        yield _group_of(files, group)


def _group_of(files: Sequence[SourceFile], group: Sequence[int]) -> Part:
    num_bytes = sum(files[i].num_bytes for i in group)
    return Part(group[0], len(group), num_bytes=num_bytes)


def _parts_of_large(place: int, file: SourceFile, *, cuts_texts: bool) -> Iterator[Part]:
    size = file.num_bytes
    if file.format == "text":
        if cuts_texts and not file.packing:
            yield Part(place, end=size, num_bytes=size, is_pieces=True)
        else:
            yield Part(place, num_bytes=size)
    elif file.format == "lines" and not file.packing:
        step = max(1, UNIT_BYTES // chunks.CHUNK_BYTES) * chunks.CHUNK_BYTES
        for start in range(0, size, step):
            end = min(start + step, size)
            yield Part(place, start=start, end=end, num_bytes=end - start)
    elif size > UNIT_BYTES and not file.is_sequential:
        yield from _parts_of_table(place, file)
    elif size:
        yield Part(place, num_bytes=size)


def _parts_of_table(place: int, file: SourceFile) -> Iterator[Part]:
    from clusterlm.data.formats.read_tables import row_ranges

    begin = end = held = 0
    for part in row_ranges(file):
        if held and held + part.num_bytes > UNIT_BYTES:
            yield Part(place, start=begin, end=end, num_bytes=held)
            begin, held = end, 0
        end = part.end
        held += part.num_bytes
    if held:
        yield Part(place, start=begin, end=end, num_bytes=held)


def _unit_of(source: int, files: Sequence[SourceFile], parts: list[Part]) -> Unit:
    first, last = parts[0].first_file, parts[-1].first_file + parts[-1].num_files
    return Unit(source, first, tuple(files[first:last]), tuple(parts))


def _edges(file: SourceFile, start: int, end: int) -> str:
    """What besides the bytes of a range settles which lines begin in it, and how they end."""
    try:
        with file.path.open("rb") as handle:
            handle.seek(max(0, start - 1))
            begins_line = not start or handle.read(1) == b"\n"
            handle.seek(end - 1)
            last_line = handle.readline()
    except OSError as error:
        raise DataError(f"{file.path}: cannot be read ({error.strerror})") from error
    return f"{begins_line:d} {xxhash.xxh3_64_hexdigest(last_line)}"
