"""Chunks -> token ids, and for conversations which of them are trained. Runs in the workers.

A document is the tokenizer's prefix (a beginning-of-text token, if it has one), its text, and the
end-of-text token. A conversation is its rendered text as it stands; where the last answer ends
without any special token, the end-of-text token is put behind it and trained, else the model would
never learn to stop. The result depends on the chunk alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from clusterlm.data.chat import Span
from clusterlm.data.convert import Message, convert
from clusterlm.data.dedup import digest_of, digest_of_pieces
from clusterlm.data.long_text import PIECE_BYTES, SEAM_BYTES, cut_text
from clusterlm.data.order import keys_of, repeats_of
from clusterlm.data.sources import Chunk, Place, Record, read_records
from clusterlm.data.tokenizer import load_vocabulary
from clusterlm.spec.data import Source

BATCH_CHARS = 1 << 20
"""Text encoded at once; the library takes some 150 bytes of memory for each byte of it."""

MAX_EXAMPLES = 3
"""Bad records that a chunk gives the place of."""

TokenType = type[np.unsignedinteger[Any]]
TokenArray = npt.NDArray[np.unsignedinteger[Any]]
Mask = npt.NDArray[np.bool_]
Problem = tuple[Place, str]


@dataclass(frozen=True)
class EncodeOptions:
    """What a worker has to know besides the chunk."""

    sources: tuple[Source, ...]
    tokenizer: Path
    block_size: int
    overlong: str
    on_bad_record: str


@dataclass(frozen=True)
class EncodedChunk:
    """The documents of one chunk, one behind the other.

    Attributes:
        lengths: tokens of each document.
        supervised: trained tokens of each conversation; for texts, zeros.
        mask: for conversations, which tokens are trained.
        digests: 16 bytes a document.
        counts: documents left out, by reason, and what else is to be told.
        examples: records left out because they could not be used.
        error: the first record that is to stop the run; nothing behind it was read.
    """

    chunk: Chunk
    tokens: TokenArray
    lengths: npt.NDArray[np.int64]
    supervised: npt.NDArray[np.int64]
    mask: Mask | None
    digests: bytes
    counts: Counter[str]
    examples: list[Problem]
    error: Problem | None


def token_dtype(vocab_size: int) -> TokenType:
    """The smallest type that holds every id."""
    return np.uint16 if vocab_size < 65536 else np.uint32


def trained_tokens(starts: npt.NDArray[np.int64], spans: Sequence[Span]) -> Mask:
    """Which tokens begin inside one of the spans.

    # starts [0 4 9 12], spans [(4, 10)] -> [no yes yes no]
    """
    # a position is inside a span when more spans have begun than ended before it
    begun = np.searchsorted([start for start, _ in spans], starts, side="right")
    ended = np.searchsorted([end for _, end in spans], starts, side="right")
    return begun > ended


@dataclass(frozen=True)
class _Item:
    """One document on its way: texts to encode in a row, and what goes around them."""

    place: Place
    texts: list[str]
    digest: bytes
    spans: list[Span] | None = None
    has_prefix: bool = True
    has_end: bool = True


@dataclass
class _Documents:
    """The documents of a chunk, as they come."""

    dtype: TokenType
    tokens: list[TokenArray] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    supervised: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[Problem] = field(default_factory=list)
    error: Problem | None = None

    def add(self, ids: Sequence[Sequence[int]], digest: bytes, mask: Mask | None = None) -> None:
        self.tokens += [np.array(part, dtype=self.dtype) for part in ids if part]
        self.lengths.append(sum(map(len, ids)))
        self.digests.append(digest)
        # the first token of a sample is predicted from nothing
        self.supervised.append(0 if mask is None else int(mask[1:].sum()))
        if mask is not None:
            self.masks.append(mask)

    def result(self, chunk: Chunk) -> EncodedChunk:
        empty = np.zeros(0, dtype=self.dtype)
        return EncodedChunk(
            chunk=chunk,
            tokens=np.concatenate(self.tokens) if self.tokens else empty,
            lengths=np.array(self.lengths, dtype=np.int64),
            supervised=np.array(self.supervised, dtype=np.int64),
            mask=np.concatenate(self.masks) if self.masks else None,
            digests=b"".join(self.digests),
            counts=self.counts,
            examples=self.examples,
            error=self.error,
        )


class Encoder:
    """Encodes chunks; one in each process."""

    def __init__(self, options: EncodeOptions) -> None:
        self._options = options
        self._vocabulary = load_vocabulary(options.tokenizer)
        has_chat = any(source.kind != "text" for source in options.sources)
        # compiled only where needed: a broken template is no matter for texts
        self._chat = self._vocabulary.chat if has_chat else None
        self._dtype = token_dtype(self._vocabulary.size)

    def encode(self, chunk: Chunk) -> EncodedChunk:
        """Read and encode one chunk."""
        out = _Documents(self._dtype)
        for items in _batches(self._items(chunk, out)):
            if items[0].spans is None:
                self._encode_texts(items, out)
            elif not self._encode_chats(items, out):
                break
        return out.result(chunk)

    def _items(self, chunk: Chunk, out: _Documents) -> Iterator[_Item]:
        source = self._options.sources[chunk.source]
        for record in read_records(chunk):
            out.counts["documents"] += 1
            try:
                item = self._item_of(record, chunk, source, out.counts)
            except ValueError as error:
                problem = (record.place, str(error))
                if self._options.on_bad_record == "stop":
                    out.error = problem
                    return
                out.counts["bad_record"] += 1
                out.examples += [problem] if len(out.examples) < MAX_EXAMPLES else []
                continue
            if item is not None:
                yield item

    def _item_of(
        self, record: Record, chunk: Chunk, source: Source, counts: Counter[str]
    ) -> _Item | None:
        """What is to be encoded; None when the record is left out, which is counted."""
        if record.problem is not None:
            raise ValueError(record.problem)
        if chunk.is_piece:
            return self._piece(record, chunk, counts)
        content = convert(record.value, source)
        if isinstance(content, str):
            item = self._text(content, record.place, counts)
        else:
            item = self._conversation(content, record.place, counts)
        if item is not None and not repeats_of(keys_of(item.digest), source.weight)[0]:
            counts["not_sampled"] += 1
            return None
        return item

    def _piece(self, record: Record, chunk: Chunk, counts: Counter[str]) -> _Item:
        """A piece of a long file; `collect.py` makes the pieces one document again."""
        text = str(record.value)
        if record.before and text:
            counts["inexact_cuts"] += self._cut_changes_ids(record.before, text)
        digest = digest_of(text.encode()) if text else b""
        is_first = chunk.start == 0
        return _Item(record.place, [text], digest, None, is_first, has_end=chunk.is_last)

    def _text(self, text: str, place: Place, counts: Counter[str]) -> _Item | None:
        if not text or text.isspace():
            counts["empty"] += 1
            return None
        raw = text.encode()
        if len(raw) <= PIECE_BYTES:
            return _Item(place, [text], digest_of(raw))
        pieces = list(cut_text(raw))
        texts = [piece.decode() for piece in pieces]
        counts["inexact_cuts"] += sum(map(self._cut_changes_ids, texts, texts[1:]))
        return _Item(place, texts, digest_of_pieces([digest_of(piece) for piece in pieces]))

    def _conversation(
        self, messages: list[Message], place: Place, counts: Counter[str]
    ) -> _Item | None:
        assert self._chat is not None
        text, spans = self._chat.render_with_spans(messages)
        if not spans:
            counts["nothing_to_train"] += 1
            return None
        # the words and not their rendering: another template must not move the split
        return _Item(place, [text], digest_of(orjson.dumps(messages)), spans)

    def _encode_texts(self, items: list[_Item], out: _Documents) -> None:
        vocabulary = self._vocabulary
        texts = [text for item in items for text in item.texts]
        # without offsets it takes half the time
        rows = iter(vocabulary.encoder.encode_batch_fast(texts, add_special_tokens=False))
        for item in items:
            ids = [next(rows).ids for _ in item.texts]
            before = vocabulary.prefix if item.has_prefix else ()
            behind = (vocabulary.eos_id,) if item.has_end else ()
            out.add([before, *ids, behind], item.digest)

    def _encode_chats(self, items: list[_Item], out: _Documents) -> bool:
        """Add conversations; False when one of them is to stop the run."""
        texts = [item.texts[0] for item in items]
        rows = self._vocabulary.encoder.encode_batch(texts, add_special_tokens=False)
        for item, row in zip(items, rows, strict=True):
            starts = np.array([start for start, _ in row.offsets], dtype=np.int64)
            ids, mask = self._ended(row.ids, trained_tokens(starts, item.spans or ()))
            if len(ids) > self._options.block_size:
                if self._options.overlong == "error":
                    out.error = (item.place, self._too_long(len(ids)))
                    return False
                if self._options.overlong == "drop":
                    out.counts["overlong"] += 1
                    continue
                out.counts["truncated"] += 1
                ids, mask = ids[: self._options.block_size], mask[: self._options.block_size]
            if mask[1:].any():
                out.add([ids], item.digest, mask)
            else:
                out.counts["nothing_to_train"] += 1
        return True

    def _ended(self, ids: list[int], mask: Mask) -> tuple[list[int], Mask]:
        trained = np.flatnonzero(mask)
        if not len(trained) or ids[trained[-1]] in self._vocabulary.special_ids:
            return ids, mask
        return [*ids, self._vocabulary.eos_id], np.append(mask, np.True_)

    def _too_long(self, num_tokens: int) -> str:
        size = self._options.block_size
        return (
            f"a conversation of {num_tokens} tokens, longer than data.block_size {size};"
            " set data.overlong: drop or truncate"
        )

    def _cut_changes_ids(self, left: str, right: str) -> bool:
        """Whether a cut gives other ids than none, as far as its surroundings show."""
        left, right = left[-SEAM_BYTES:], right[:SEAM_BYTES]
        encode = self._vocabulary.encoder.encode
        ids = [encode(t, add_special_tokens=False).ids for t in (left, right, left + right)]
        return bool(ids[0] + ids[1] != ids[2])


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    batch: list[_Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += sum(map(len, item.texts))
        if size >= BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
