"""Reads sources: files -> chunks (units of work of about 4 MB) -> records with their place.

The chunks depend on the files alone, never on the number of workers. A chunk of lines owns the
lines that begin in its byte range. Memory stays constant: lines are streamed, a long text is read
piece by piece from a mapped file, parquet row by row. A record that cannot be read is given with
its problem in words; whether that stops the run is decided elsewhere.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from clusterlm.data.files import Format, SourceFile
from clusterlm.data.long_text import PIECE_BYTES, SEAM_BYTES, next_cut
from clusterlm.errors import DataError

CHUNK_BYTES = 4 << 20
UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Place:
    """Where a record stands: a line, or the byte offset from which the line can be counted."""

    path: Path
    offset: int | None = None
    line: int | None = None

    def __str__(self) -> str:
        line = self.line if self.line is not None else self._count_lines()
        return f"{self.path}:{line}" if line else str(self.path)

    def _count_lines(self) -> int | None:
        if self.offset is None:
            return None
        count, left = 1, self.offset
        with self.path.open("rb") as handle:
            while left > 0 and (block := handle.read(min(left, 1 << 20))):
                count += block.count(b"\n")
                left -= len(block)
        return count


@dataclass(frozen=True)
class Record:
    """One record: a text, or a row with its fields; or, with `problem`, why it is neither.

    Attributes:
        before: for a later piece of a long text, some of the text in front of it.
    """

    place: Place
    value: str | dict[str, Any] = ""
    problem: str | None = None
    before: str = ""


@dataclass(frozen=True)
class Chunk:
    """What one worker reads at a time.

    Attributes:
        source: index of the source in the order of reading.
        end: behind the last byte; for whole files and parquet, 0.
        is_piece: a part of one long text, from about `start` to about `end`.
        is_last: no further piece of that text follows.
    """

    source: int
    format: Format
    files: tuple[SourceFile, ...]
    start: int = 0
    end: int = 0
    is_piece: bool = False
    is_last: bool = True

    @property
    def num_bytes(self) -> int:
        return self.end - self.start if self.end else sum(file.num_bytes for file in self.files)


def chunks_of(source: int, files: Iterable[SourceFile]) -> Iterator[Chunk]:
    """The chunks of one source, in reading order."""
    group: list[SourceFile] = []
    for file in files:
        is_whole_text = file.format == "text" and file.num_bytes <= PIECE_BYTES
        size = sum(member.num_bytes for member in group)
        if group and not (is_whole_text and size + file.num_bytes <= CHUNK_BYTES):
            yield Chunk(source, "text", tuple(group))
            group = []
        if is_whole_text:
            group.append(file)
        else:
            yield from _chunks_of_large(source, file)
    if group:
        yield Chunk(source, "text", tuple(group))


def read_records(chunk: Chunk) -> Iterator[Record]:
    """The records of a chunk, in order; one for a piece of a long text, perhaps empty."""
    if chunk.is_piece:
        yield _read_piece(chunk)
    else:
        yield from READERS[chunk.format](chunk)


def _chunks_of_large(source: int, file: SourceFile) -> Iterator[Chunk]:
    if file.format == "parquet":
        yield Chunk(source, "parquet", (file,))
        return
    is_piece = file.format == "text"
    step = PIECE_BYTES if is_piece else CHUNK_BYTES
    for start in range(0, file.num_bytes, step):
        end = min(start + step, file.num_bytes)
        is_last = end == file.num_bytes
        yield Chunk(source, file.format, (file,), start, end, is_piece=is_piece, is_last=is_last)


def _read_texts(chunk: Chunk) -> Iterator[Record]:
    for file in chunk.files:
        yield _decoded(file.path, _bytes_of(file.path), 0)


def _read_piece(chunk: Chunk) -> Record:
    path = chunk.files[0].path
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = next_cut(data, chunk.start) if chunk.start else 0
        end = len(data) if chunk.is_last else next_cut(data, chunk.end)
        before = data[max(0, start - SEAM_BYTES) : start].decode(errors="ignore")
        return replace(_decoded(path, data[start:end], start), before=before)


def _decoded(path: Path, data: bytes, offset: int) -> Record:
    if offset == 0:
        data = data.removeprefix(UTF8_BOM)
    try:
        return Record(Place(path), data.decode())
    except UnicodeDecodeError as error:
        found = f"not UTF-8 (byte 0x{data[error.start]:02x})"
        return Record(Place(path, offset=offset + error.start), problem=found)


def _read_lines(chunk: Chunk) -> Iterator[Record]:
    path, offset = chunk.files[0].path, chunk.start
    with path.open("rb") as handle:
        if offset:
            # the line that runs across the start belongs to the chunk before
            handle.seek(offset - 1)
            offset += len(handle.readline()) - 1
        while offset < chunk.end and (line := handle.readline()):
            body = line.removeprefix(UTF8_BOM) if offset == 0 else line
            if body.strip():
                yield _row_of(Place(path, offset=offset), body)
            offset += len(line)


def _row_of(place: Place, line: bytes) -> Record:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return Record(place, problem=_why_no_json(line, error))
    if not isinstance(value, dict):
        hint = "; write one object on each line" if isinstance(value, list) else ""
        return Record(place, problem=f"a JSON {_kind_of(value)}, not an object{hint}")
    return Record(place, value)


def _why_no_json(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as broken:
        return f"not UTF-8 (byte 0x{line[broken.start]:02x})"
    if line.strip() in (b"[", b"{"):
        return "JSON spread over several lines; write one object on each line"
    return f"not JSON ({error.msg} at column {error.colno})"


def _kind_of(value: object) -> str:
    names = {list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _read_parquet(chunk: Chunk) -> Iterator[Record]:
    # imported here: it takes a second, and most sources are not parquet
    import datasets

    path = chunk.files[0].path
    try:
        rows = datasets.load_dataset(
            "parquet", data_files=[str(path)], split="train", streaming=True
        )
        for number, row in enumerate(rows, 1):
            yield Record(Place(path, line=number), row)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: no readable parquet file ({reason})") from error


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


READERS: dict[Format, Callable[[Chunk], Iterator[Record]]] = {
    "text": _read_texts,
    "lines": _read_lines,
    "parquet": _read_parquet,
}
