"""Chunks of files that can be read from their beginning only.

A worker keeps its place in such a file and only moves forward: asked for stretch 3 after stretch 0,
it passes over 1 and 2; asked for an earlier one, it begins again. Any worker finds the same rows in
the same stretch. So one packed file is read no faster than one core unpacks it (gzip some 250 MB/s
of rows, zstd three times that), whatever the number of workers; many files are.
"""

from __future__ import annotations

from collections.abc import Iterator

from clusterlm.data.files import SourceFile
from clusterlm.data.formats.chunks import Chunk, Record, Stretch
from clusterlm.data.formats.kept_open import KeptOpen
from clusterlm.data.formats.packed import Unpacked
from clusterlm.data.formats.read_rows import row_stretches
from clusterlm.errors import DataError


def read_stretch(chunk: Chunk) -> Iterator[Record]:
    """The records of the `index`-th stretch; none behind the end."""
    file = chunk.files[0]
    reader = _READERS.take(file, lambda reader: reader.next_index <= chunk.index)
    try:
        stretch = reader.stretch(chunk.index)
    except DataError:
        _READERS.drop(file)
        raise
    if stretch is not None:
        yield from stretch(chunk.first_file)


def bytes_taken(chunk: Chunk) -> int:
    """How much of the file's own bytes this process took for the stretch it read last."""
    reader = _READERS.peek(chunk.files[0])
    return reader.num_taken if reader is not None else 0


class _Reader:
    """One file, and the place in it."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._unpacked = Unpacked(file)
        self._stretches = row_stretches(file, self._unpacked)
        self.next_index = 0
        self.num_taken = 0

    def stretch(self, index: int) -> Stretch | None:
        found = None
        while self.next_index <= index:
            before = self._unpacked.num_read
            found = next(self._stretches, None)
            self.num_taken = self._unpacked.num_read - before
            if found is None:
                # stay here: all later ones are behind the end too
                return None
            self.next_index += 1
        return found


_READERS = KeptOpen(_Reader)
