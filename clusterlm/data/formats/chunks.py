"""What is read at a time: a chunk of about 4 MiB, and the records that it holds.

Chunks depend on the files alone, never on who reads them. Light: a chunk travels to the workers.

    format     one chunk is                                    start, end
    text       some small files, or one, or a piece of one     0; bytes of a piece
    lines      the lines that begin in a range of bytes        bytes, on a grid from 0
    parquet    a range of rows                                 rows
    arrow      a range of rows                                 rows
    rows       the `index`-th stretch of a file that can be    0
               read from its beginning only; so are packed
               lines (.jsonl.gz)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from clusterlm.data.files import Format, SourceFile

CHUNK_BYTES = 4 << 20
UTF8_BOM = b"\xef\xbb\xbf"


class Record(NamedTuple):
    """One record: a text, or a row with its fields; or, with `problem`, why it is neither.

    Attributes:
        file: place of its file among the files of the source.
        offset: where it stands: the byte in a text or in (unpacked) lines, else the number of the
            row, counted from 0.
        problem: what is wrong, in words.
    """

    file: int
    offset: int
    value: str | dict[str, Any] = ""
    problem: str | None = None


@dataclass(frozen=True)
class Chunk:
    """What one worker reads at a time; `start` and `end` are drawn at the head of this file.

    Attributes:
        source: place of the source in the order of reading.
        first_file: place of `files[0]` among the files of the source.
        index: place among the chunks of its file.
        is_piece: a part of one long text, from about `start` to about `end`.
        is_last: no further piece of that text follows.
        num_bytes: share of the files' size; 0 when it is known only after reading (is_open).
    """

    source: int
    format: Format
    files: tuple[SourceFile, ...]
    first_file: int = 0
    start: int = 0
    end: int = 0
    index: int = 0
    is_piece: bool = False
    is_last: bool = True
    num_bytes: int = 0

    @property
    def is_open(self) -> bool:
        """Whether reading alone shows that it exists: without records, it is behind the end."""
        return self.files[0].is_sequential


Stretch = Callable[[int], Iterator[Record]]
"""About CHUNK_BYTES of rows, as they come; called with the place of the file, it gives them as
records. Passed over, it costs little."""
