"""The texts that a tokenizer is trained on: all of a small corpus, an even sample of a large one.

Up to SAMPLE_BYTES everything is taken. Beyond, the beginnings of chunks at even distances through
all the sources: the same for the same files, and 100 GB need not be read for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clusterlm.data.convert import convert
from clusterlm.data.sources import Chunk, read_records
from clusterlm.spec.data import Source

SAMPLE_BYTES = 20_000_000
SLICE_BYTES = 256_000
"""Taken of each chunk when not everything is."""


def sample_chunks(chunks: Sequence[Chunk]) -> tuple[list[Chunk], int | None]:
    """The chunks to read, and how many bytes of each; None for all."""
    if sum(chunk.num_bytes for chunk in chunks) <= SAMPLE_BYTES:
        return list(chunks), None
    count = min(len(chunks), SAMPLE_BYTES // SLICE_BYTES)
    # few large chunks (parquet): more of each
    return [chunks[i * len(chunks) // count] for i in range(count)], SAMPLE_BYTES // count


def sample_texts(
    chunks: Sequence[Chunk], sources: Sequence[Source], max_bytes: int | None
) -> Iterator[list[str]]:
    """Texts in reading order, a list for each chunk; what cannot be used is passed over."""
    for chunk in chunks:
        texts, left = [], max_bytes
        for text in _texts_of(chunk, sources[chunk.source]):
            texts.append(text if left is None else text[:left])
            if left is not None:
                # a cut in characters is close enough to one in bytes
                left -= len(texts[-1].encode())
                if left <= 0:
                    break
        yield texts


def _texts_of(chunk: Chunk, source: Source) -> Iterator[str]:
    for record in read_records(chunk):
        if record.problem is not None:
            continue
        try:
            content = convert(record.value, source)
        except ValueError:
            # told, with its place, when the corpus is encoded
            continue
        if isinstance(content, str):
            yield content
        else:
            yield from (message["content"] for message in content)
