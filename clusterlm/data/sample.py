"""Texts of a corpus for a look at it: all of a small one, an even sample of a large one.

A tokenizer is trained on at most 20 MB, engines are tried on one. Beyond that, the beginnings of
chunks at even distances through all the sources: the same for the same files, and 100 GB need not
be read for it. Of a compressed file, whose middle cannot be reached, the beginning.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clusterlm.data.convert import BadRecord, Conversation, Dropped, converter_of
from clusterlm.data.formats.chunks import Chunk
from clusterlm.data.formats.units import units_of
from clusterlm.data.kinds.written import as_json, encoded
from clusterlm.data.reading import Reading
from clusterlm.data.sources import read_records
from clusterlm.data.tokens.long_text import Cutter

SAMPLE_BYTES = 20_000_000
SLICE_BYTES = 256_000
"""Taken of each chunk when not everything is."""
_OPEN_CHUNKS = 6
"""Chunks taken of a file whose length is not known."""

# where texts may be looked at in pieces; a sample need not know about tokens
_CUTTER = Cutter(spaces=True, newlines=True, commas=True)


@dataclass(frozen=True)
class Sample:
    """Which chunks to read, and how many bytes of each; None for all."""

    readings: Sequence[Reading]
    chunks: Sequence[Chunk]
    slice_bytes: int | None
    num_bytes: int
    of_bytes: int

    def texts(self) -> Iterator[list[str]]:
        """Texts in reading order, a list for each chunk; what cannot be used is passed over."""
        for chunk in self.chunks:
            texts, left = [], self.slice_bytes
            for text in _texts_of(chunk, self.readings[chunk.source]):
                texts.append(text if left is None else text[:left])
                if left is not None:
                    # a cut in characters is close enough to one in bytes
                    left -= len(texts[-1].encode())
                    if left <= 0:
                        break
            yield texts


def sample_of(readings: Sequence[Reading], *, max_bytes: int = SAMPLE_BYTES) -> Sample:
    """An even sample of about `max_bytes`."""
    chunks = [
        chunk
        for number, reading in enumerate(readings)
        for unit in units_of(reading.files, number)
        for chunk in itertools.islice(unit.chunks(), _OPEN_CHUNKS if unit.is_open_ended else None)
    ]
    total = sum(chunk.num_bytes for chunk in chunks)
    of_bytes = sum(reading.num_bytes for reading in readings)
    if total <= max_bytes:
        return Sample(readings, chunks, None, total, of_bytes)
    count = max(1, min(len(chunks), max_bytes // min(SLICE_BYTES, max_bytes // 4)))
    # few large chunks (parquet): more of each
    size = max_bytes // count
    chosen = [chunks[i * len(chunks) // count] for i in range(count)]
    taken = sum(min(chunk.num_bytes, size) for chunk in chosen)
    return Sample(readings, chosen, size, taken, of_bytes)


def _texts_of(chunk: Chunk, reading: Reading) -> Iterator[str]:
    convert = converter_of(reading.source)
    for record in read_records(chunk, _CUTTER):
        if record.problem is not None:
            continue
        try:
            content = str(record.value) if chunk.is_piece else convert(record.value)
            yield from _words_of(content)
        except (Dropped, BadRecord):
            # told, with its place, when the corpus is encoded
            continue


def _words_of(content: str | Conversation) -> list[str]:
    """A text, or all that a chat template may show of a conversation."""
    if isinstance(content, str):
        _ = content.isascii() or encoded(content)
        return [content]
    values = [value for message in content.messages for value in message.values()]
    words = [v if isinstance(v, str) else as_json(v).decode() for v in values if v is not None]
    if content.tools:
        words.append(as_json(content.tools).decode())
    for text in words:
        _ = text.isascii() or encoded(text)
    return words
