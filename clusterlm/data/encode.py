"""Chunks -> tokens, and for conversations which of them are trained. Runs in the workers.

A text is the tokenizer's prefix (a beginning-of-text token, if it has one), its words, and the
end-of-text token. A conversation is its rendered text as it stands; where the last answer ends
without any special token, the end-of-text token is put behind it and trained, else the model would
never learn to stop. The result depends on the chunk alone. It stays in the worker, in `held`, until
it is known where it is to be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from clusterlm.data.batch import Batches
from clusterlm.data.dedup import digest_of
from clusterlm.data.formats.chunks import Chunk
from clusterlm.data.formats.content import content_key
from clusterlm.data.hashes import HashMemo
from clusterlm.data.items import Item, SourceItems
from clusterlm.data.sources import bytes_taken
from clusterlm.data.store.documents import (
    DOCUMENT,
    EncodedChunk,
    Ids,
    Numbers,
    Problem,
    token_dtype,
)
from clusterlm.data.store.shard_writer import Place
from clusterlm.data.store.shards import ChunkArrays, ChunkRow, read_chunk
from clusterlm.data.targets import is_coded
from clusterlm.data.tokenizer import load_vocabulary
from clusterlm.data.tokens.engines import open_engine
from clusterlm.data.tokens.long_text import Cutter, check_cuts
from clusterlm.data.tokens.token_masks import TokenMasks
from clusterlm.paths import cache_dir
from clusterlm.spec.sources import ConversationSource, Source, TextSource

BATCH_CHARS = 1 << 20
"""Text encoded at once; the Hugging Face library takes some 150 bytes for each byte of it."""

Known = Mapping[str, tuple[Path, ChunkRow]]


@dataclass(frozen=True)
class EncodeOptions:
    """What a worker has to know besides the chunk.

    Attributes:
        sources: in reading order.
        keys: of each source: all that makes tokens of its content.
        tokenizer: its folder.
        engine: that tokenizes.
        cutter: where long texts may be cut, if they may.
        known: chunks that lie in other shards, by their key.
    """

    sources: tuple[Source, ...]
    keys: tuple[str, ...]
    tokenizer: Path
    engine: str
    cutter: Cutter | None
    known: Known = field(default_factory=dict)


@dataclass(frozen=True)
class EncodedSizes:
    """An encoded chunk without its arrays: what the parent is told."""

    key: str
    num_tokens: int
    num_documents: int
    num_records: int
    num_bytes: int
    is_masked: bool
    is_coded: bool
    is_reused: bool
    domains: list[str]
    counts: dict[str, int]
    dropped: list[Problem]

    def row(self, number: int, file: int, place: Place) -> ChunkRow:
        """How the shard remembers it, once it is written at `place`."""
        return ChunkRow(
            number=number,
            key=self.key,
            file=file,
            token_start=place.token_start,
            num_tokens=self.num_tokens,
            document_start=place.document_start,
            num_documents=self.num_documents,
            num_records=self.num_records,
            num_bytes=self.num_bytes,
            hash="",
            is_masked=self.is_masked,
            is_coded=self.is_coded,
            domains=self.domains,
            counts=self.counts,
            dropped=list(self.dropped),
        )


class Encoder:
    """Encodes chunks; one in each process."""

    def __init__(self, options: EncodeOptions) -> None:
        self.held: dict[int, ChunkArrays] = {}
        tokenizer = options.tokenizer / "tokenizer.json"
        self._options = options
        self._vocabulary = load_vocabulary(options.tokenizer)
        self._dtype = np.dtype(token_dtype(self._vocabulary.size))
        self._engine = open_engine(options.engine, tokenizer)
        self._masks = TokenMasks(tokenizer, self._vocabulary)
        self._memo = HashMemo(cache_dir() / ".hashes.json")
        self._items: dict[int, SourceItems] = {}

    def encode(self, number: int, chunk: Chunk) -> EncodedSizes:
        """Encode a chunk, or find it among the known ones; hold its arrays under `number`."""
        content = content_key(chunk, self._memo)
        key = digest_of(f"{self._options.keys[chunk.source]} {content}".encode()).hex()
        found = self._options.known.get(key)
        if found is not None:
            root, row = found
            arrays = read_chunk(root, row, self._dtype.name)
            if arrays is not None:
                self.held[number] = arrays
                return _sizes_of_row(row)
        encoded = self.encode_chunk(chunk, key)
        arrays = _arrays_of(encoded, self._options.sources[chunk.source])
        self.held[number] = arrays
        return _sizes_of(encoded, arrays)

    def try_texts(self, texts: list[str]) -> tuple[tuple[Ids, Numbers], bool]:
        """The ids of texts, and whether cutting them changes any."""
        cutter = self._options.cutter
        holds = cutter is None or check_cuts(cutter, self._engine, texts)
        return self._engine.encode(texts), holds

    def encode_chunk(self, chunk: Chunk, key: str = "") -> EncodedChunk:
        """Read and encode one chunk."""
        source = self._options.sources[chunk.source]
        empty = np.zeros(0, dtype=self._dtype), np.zeros(0, dtype=DOCUMENT)
        out = EncodedChunk(key, *empty, num_bytes=chunk.num_bytes)
        batches = Batches(source, self._vocabulary, self._engine, self._masks, out)
        waiting: list[Item] = []
        num_chars = 0
        for item in self._items_of(chunk.source).of(chunk, out):
            waiting.append(item)
            num_chars += item.num_chars
            if num_chars >= BATCH_CHARS:
                batches.encode(waiting)
                waiting, num_chars = [], 0
        if waiting:
            batches.encode(waiting)
        if chunk.is_open:
            out.num_bytes = bytes_taken(chunk)
        return batches.finish()

    def _items_of(self, number: int) -> SourceItems:
        items = self._items.get(number)
        if items is None:
            source = self._options.sources[number]
            # compiled only where needed: a broken template is no matter for texts
            template = None if isinstance(source, TextSource) else self._vocabulary.chat
            items = self._items[number] = SourceItems(
                source, template, self._options.cutter, self._engine.piece_bytes
            )
        return items


def _arrays_of(encoded: EncodedChunk, source: Source) -> ChunkArrays:
    trained = codes = None
    if encoded.codes is not None:
        trained = np.packbits(encoded.codes > 0).tobytes()
        assert isinstance(source, ConversationSource)
        codes = encoded.codes.tobytes() if is_coded(source) else None
    return ChunkArrays(encoded.tokens, encoded.documents, trained, codes)


def _sizes_of(encoded: EncodedChunk, arrays: ChunkArrays) -> EncodedSizes:
    return EncodedSizes(
        key=encoded.key,
        num_tokens=len(encoded.tokens),
        num_documents=len(encoded.documents),
        num_records=encoded.num_records,
        num_bytes=encoded.num_bytes,
        is_masked=arrays.trained is not None,
        is_coded=arrays.codes is not None,
        is_reused=False,
        domains=encoded.domains,
        counts=dict(encoded.counts),
        dropped=encoded.dropped,
    )


def _sizes_of_row(row: ChunkRow) -> EncodedSizes:
    names = {field.name for field in fields(EncodedSizes)} - {"is_reused", "dropped"}
    same = {name: getattr(row, name) for name in names}
    return EncodedSizes(**same, is_reused=True, dropped=row.problems)
