"""Parquet and arrow: ranges of rows, read in batches of about 1 MiB.

Row groups of up to SPLIT_BYTES are a chunk, small ones together. A larger one is several ranges of
rows; parquet can be decoded from the beginning of a row group only, so a worker keeps its place and
decodes what it passes over (some 800 MB/s). Arrow files, the stream that `datasets` writes or the
file format, are mapped, and what is passed over is not touched.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, NamedTuple

from clusterlm.data.files import Format, SourceFile
from clusterlm.data.formats import chunks
from clusterlm.data.formats.chunks import Chunk, Record
from clusterlm.data.formats.kept_open import KeptOpen
from clusterlm.errors import DataError

SPLIT_CHUNKS = 4
"""A parquet row group of more than so many CHUNK_BYTES is split into ranges of half as much."""

BATCH_BYTES = 1 << 20
MAX_BATCH_ROWS = 4096
_BUFFER_BYTES = 1 << 20


class RowRange(NamedTuple):
    """Rows [start, end) of a file, and their share of its bytes."""

    start: int
    end: int
    num_bytes: int


def row_ranges(file: SourceFile) -> list[RowRange]:
    """The chunks of a file; none when it has no rows."""
    with _in_words(file):
        sizes = _OPENERS[file.format](file).sizes()
    ranges = [part for part in _cut(sizes, file.format) if part.end > part.start]
    # sizes are those of the unpacked rows; shares of the file's own bytes add up
    total = sum(part.num_bytes for part in ranges) or 1
    out, done = [], 0
    for part in ranges:
        before, done = done, done + part.num_bytes
        share = file.num_bytes * done // total - file.num_bytes * before // total
        out.append(part._replace(num_bytes=share))
    return out


def read_table(chunk: Chunk) -> Iterator[Record]:
    """The records of the rows [start, end)."""
    file = chunk.files[0]
    with _in_words(file):
        reader = _READERS.take(file, lambda reader: reader.position <= chunk.start)
        for number, batch in reader.read(chunk.start, chunk.end):
            yield from _records_of(batch, number, chunk.first_file)


def _cut(sizes: list[tuple[int, int]], format: Format) -> Iterator[RowRange]:
    limit = chunks.CHUNK_BYTES
    largest = limit * SPLIT_CHUNKS if format == "parquet" else limit
    begin = end = held = 0
    for num_rows, num_bytes in sizes:
        if held + num_bytes > limit:
            yield RowRange(begin, end, held)
            begin, held = end, 0
        if num_bytes > largest:
            count = min(num_rows, -(-num_bytes // largest))
            for i in range(count):
                low, high = num_rows * i // count, num_rows * (i + 1) // count
                yield RowRange(end + low, end + high, num_bytes // count)
            begin, held = end + num_rows, 0
        else:
            held += num_bytes
        end += num_rows
    yield RowRange(begin, end, held)


class _Parquet:
    """Batches of a parquet file; the beginning of each row group can be reached at once."""

    def __init__(self, file: SourceFile) -> None:
        import pyarrow.parquet

        # buffered and not read ahead: memory stays small however large a row group
        self._file = pyarrow.parquet.ParquetFile(
            str(file.path), buffer_size=_BUFFER_BYTES, pre_buffer=False
        )

    def sizes(self) -> list[tuple[int, int]]:
        """Rows and bytes of each row group."""
        metadata = self._file.metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        return [(group.num_rows, group.total_byte_size) for group in groups]

    def starts(self) -> list[int]:
        """The first row of each row group."""
        return list(accumulate((num_rows for num_rows, _ in self.sizes()), initial=0))[:-1]

    def batches(self, first_group: int) -> Iterator[Any]:
        """The rows from that row group on."""
        for i, (num_rows, num_bytes) in enumerate(self.sizes()):
            if i >= first_group and num_rows:
                # one thread: the workers are the parallelism
                yield from self._file.iter_batches(
                    _batch_rows(num_rows, num_bytes), row_groups=[i], use_threads=False
                )


class _Arrow:
    """Batches of a mapped arrow file; to pass over one costs next to nothing."""

    def __init__(self, file: SourceFile) -> None:
        import pyarrow

        source = pyarrow.memory_map(str(file.path))
        is_stream = source.read(6) != b"ARROW1"
        source.seek(0)
        ipc = pyarrow.ipc
        self._file = ipc.open_stream(source) if is_stream else ipc.open_file(source)
        self._is_stream = is_stream

    def sizes(self) -> list[tuple[int, int]]:
        """Rows and bytes of each record batch; a stream is then at its end."""
        return [(batch.num_rows, batch.nbytes) for batch in self.batches(0)]

    def starts(self) -> list[int]:
        """The first row alone can be reached at once."""
        return [0]

    def batches(self, first_group: int) -> Iterator[Any]:
        """All rows."""
        if self._is_stream:
            return iter(self._file)
        return map(self._file.get_batch, range(self._file.num_record_batches))


class _Rows:
    """One table and the row that comes next in it.

    Attributes:
        position: the number of that row.
    """

    def __init__(self, file: SourceFile) -> None:
        self._table = _OPENERS[file.format](file)
        self._starts = self._table.starts()
        self._batches = self._table.batches(0)
        self._batch: Any = None
        self.position = 0

    def read(self, start: int, end: int) -> Iterator[tuple[int, Any]]:
        """The rows [start, end) in small batches, each with the number of its first row."""
        place = bisect_right(self._starts, start) - 1
        if self._starts[place] > self.position:
            self._batches, self._batch = self._table.batches(place), None
            self.position = self._starts[place]
        while self.position < end:
            batch = self._batch if self._batch is not None else next(self._batches, None)
            if batch is None:
                raise ValueError(f"it ends with row {self.position}, row {end} was there before")
            num_rows = min(batch.num_rows, max(0, start - self.position))
            is_wanted = not num_rows
            if is_wanted:
                num_rows = _batch_rows(batch.num_rows, batch.nbytes)
                num_rows = min(num_rows, batch.num_rows, end - self.position)
            number, self.position = self.position, self.position + num_rows
            self._batch = batch.slice(num_rows) if num_rows < batch.num_rows else None
            if is_wanted and num_rows:
                yield number, batch.slice(0, num_rows)


def _batch_rows(num_rows: int, num_bytes: int) -> int:
    return max(1, min(MAX_BATCH_ROWS, num_rows * BATCH_BYTES // max(1, num_bytes)))


def _records_of(batch: Any, number: int, file: int) -> Iterator[Record]:
    names = batch.schema.names
    try:
        columns = [column.to_pylist() for column in batch.columns]
    except UnicodeDecodeError as error:
        if batch.num_rows > 1:
            for i in range(batch.num_rows):
                yield from _records_of(batch.slice(i, 1), number + i, file)
        else:
            found = f"not UTF-8 (byte 0x{error.object[error.start]:02x})"
            yield Record(file, number, problem=found)
        return
    for offset, row in enumerate(zip(*columns, strict=True), number):
        yield Record(file, offset, dict(zip(names, row, strict=True)))


@contextmanager
def _in_words(file: SourceFile) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        _READERS.drop(file)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{file.path}: no readable {file.format} file ({reason})") from error


_OPENERS: dict[str, Callable[[SourceFile], _Parquet | _Arrow]] = {
    "parquet": _Parquet,
    "arrow": _Arrow,
}
_READERS = KeptOpen(_Rows)
