"""Some documents of each source as the model will see them: read, converted, rendered, tokenized.

The sources are read directly and nothing is prepared.
Reading, conversion and masks are those of the real phase, record by record. What is decided over
all documents (duplicates, split, mix, blocks) is not looked at, but a conversation that is longer
than a block is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clusterlm.data.batch import Batches
from clusterlm.data.formats.chunks import Chunk
from clusterlm.data.formats.hub import resolve_files
from clusterlm.data.formats.units import counts_records, units_of
from clusterlm.data.items import Item, SourceItems
from clusterlm.data.left_out import LeftOut
from clusterlm.data.looks.token_words import Token, TokenWords
from clusterlm.data.reading import Reading
from clusterlm.data.sources import place_of
from clusterlm.data.store.documents import BAD, DOCUMENT, EncodedChunk, Problem, token_dtype
from clusterlm.data.summary import REASONS
from clusterlm.data.targets import weight_table
from clusterlm.data.tokenizer import load_vocabulary
from clusterlm.data.tokens.cut_rules import cut_rule
from clusterlm.data.tokens.engines import open_engine
from clusterlm.data.tokens.token_masks import TokenMasks
from clusterlm.spec.data import Data
from clusterlm.spec.sources import ConversationSource, Source, TextSource

MOST_LEFT_OUT = 10_000
"""So many records without a usable one between them, and no further is looked."""
LISTED = 10
"""Records left out that are shown of a source."""
MOST_RECORDS = 1 << 62
"""Behind the end of every source."""
STOPS = "a record that cannot be used stops the run (data.on_bad_record)"
MOST_TOKENS = 200_000
"""Of one document; nobody reads further."""


@dataclass(frozen=True)
class Seen:
    """A document, token by token.

    Attributes:
        tokens: the first MOST_TOKENS.
        num_tokens: all of them.
        num_trained: those the loss is made of.
        weights: how many tokens have which weight, where it is not 0.
        notes: what becomes of it, where that is not clear.
    """

    place: str
    is_conversation: bool
    tokens: list[Token]
    num_tokens: int
    num_trained: int
    weights: dict[float, int]
    domain: str | None
    notes: tuple[str, ...]


@dataclass
class SourcePreview:
    """The first documents of a source, and what was left out before them."""

    place: str
    source: Source
    seen: list[Seen] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    num_records: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        return self.source.path or str(self.source.hub)

    def to_json(self) -> dict[str, Any]:
        """What `data preview --json` prints."""
        return {
            "place": self.place,
            "kind": self.source.kind,
            "path": self.path,
            "documents": [
                {
                    **vars(seen),
                    "tokens": [token._asdict() for token in seen.tokens],
                    "weights": {f"{weight:g}": n for weight, n in seen.weights.items()},
                }
                for seen in self.seen
            ],
            "left_out": [record._asdict() for record in self.left_out],
            "counts": dict(self.counts),
            "records": self.num_records,
            "notes": self.notes,
        }


@dataclass
class _Wanted(EncodedChunk):
    """A chunk that counts only those of its records that are asked for."""

    wanted: range = range(0)

    def leave_out(self, problem: Problem) -> None:
        if problem.record in self.wanted:
            super().leave_out(problem)


class Previewer:
    """Looks at sources with one tokenizer."""

    def __init__(self, data: Data, tokenizer: Path) -> None:
        json = tokenizer / "tokenizer.json"
        self._data = data
        self._vocabulary = load_vocabulary(tokenizer)
        self._engine = open_engine("tokenizers", json)
        self._cutter = cut_rule(json)
        self._masks = TokenMasks(json, self._vocabulary)
        self._words = TokenWords(json, self._vocabulary.is_special)

    def look(self, place: str, source: Source, count: int) -> SourcePreview:
        """The first `count` documents of a source that can be used.

        Raises:
            DataError: the source is not there, or cannot be read.
        """
        reading = Reading(place, source, resolve_files(source), is_held_back=False)
        found = SourcePreview(place, source)
        first, end = self._rows(reading, found)
        if source.max_documents is not None:
            count = min(count, source.max_documents)
        template = None if isinstance(source, TextSource) else self._vocabulary.chat
        items = SourceItems(source, template, self._cutter, self._engine.piece_bytes)
        for chunk, ended in self._chunks(reading):
            before = found.num_records
            last = MOST_RECORDS if end is None else end
            wanted = range(first - before, last - before)
            out = _Wanted(**vars(self._empty(chunk)), wanted=wanted)
            taken = items.of(chunk, out)
            while len(found.seen) < count:
                item = next(taken, None)
                if item is None or (end is not None and before + item.record >= end):
                    break
                if before + item.record >= first:
                    self._take(found, reading, chunk, item, out)
            found.num_records = before + out.num_records
            self._leave_out(found, reading, chunk, out)
            if chunk.is_open and not out.num_records:
                ended.add(chunk.first_file)
            is_past = end is not None and found.num_records >= end
            if len(found.seen) >= count or is_past or _is_hopeless(found, first):
                break
        return found

    def _rows(self, reading: Reading, found: SourcePreview) -> tuple[int, int | None]:
        rows = reading.rows
        if rows is None:
            return 0, None
        if rows.needs_total:
            found.notes.append(
                f"split {reading.source.split} counts from the end, or in percent: these are the"
                " first records all the same"
            )
            return 0, None
        return rows.resolve()

    def _chunks(self, reading: Reading) -> Iterator[tuple[Chunk, set[int]]]:
        cuts = self._cutter is not None
        in_order = counts_records(reading.source)
        ended: set[int] = set()
        for unit in units_of(reading.files, 0, cuts_texts=cuts, in_order=in_order):
            for chunk in unit.chunks(ended):
                # pieces behind the first are no documents
                if not (chunk.is_piece and chunk.start):
                    yield chunk, ended

    def _empty(self, chunk: Chunk) -> EncodedChunk:
        none = np.zeros(0, dtype=token_dtype(self._vocabulary.size))
        return EncodedChunk("", none, np.zeros(0, dtype=DOCUMENT), num_bytes=chunk.num_bytes)

    def _take(
        self, found: SourcePreview, reading: Reading, chunk: Chunk, item: Item, out: EncodedChunk
    ) -> None:
        """Encode one item; it is shown, or noted in `out` as left out."""
        alone = self._empty(chunk)
        batches = Batches(reading.source, self._vocabulary, self._engine, self._masks, alone)
        batches.encode([item])
        done = batches.finish()
        for problem in done.dropped:
            out.leave_out(problem)
        if not len(done.documents):
            return
        file = chunk.first_file + item.file
        place = place_of(reading.files, file, item.offset)
        found.seen.append(self._seen(place, reading.source, chunk, item, done))

    def _seen(
        self, place: str, source: Source, chunk: Chunk, item: Item, done: EncodedChunk
    ) -> Seen:
        count = len(done.tokens)
        weights = np.ones(count)
        if isinstance(source, ConversationSource) and done.codes is not None:
            weights = np.array(weight_table(source))[done.codes]
        is_conversation = item.targets is not None
        if is_conversation or self._data.isolate_documents:
            # nothing stands in front of it
            weights[:1] = 0.0
        some = slice(MOST_TOKENS)
        kinds, counts = np.unique(weights[weights > 0], return_counts=True)
        return Seen(
            place=place,
            is_conversation=is_conversation,
            tokens=list(self._words.tokens(done.tokens[some].tolist(), weights[some].tolist())),
            num_tokens=count,
            num_trained=int(np.count_nonzero(weights)),
            weights=dict(zip(kinds.tolist(), counts.tolist(), strict=True)),
            domain=item.domain,
            notes=self._notes(chunk, count, is_conversation=is_conversation),
        )

    def _notes(self, chunk: Chunk, count: int, *, is_conversation: bool) -> tuple[str, ...]:
        size, notes = self._data.block_size, []
        if chunk.is_piece:
            notes.append("the first piece of a long text")
        if is_conversation and count > size:
            what = {"drop": "dropped", "truncate": "cut", "error": "an error"}[self._data.overlong]
            notes.append(f"longer than a block of {size}: {what} (data.overlong)")
        return tuple(notes)

    def _leave_out(
        self, found: SourcePreview, reading: Reading, chunk: Chunk, out: EncodedChunk
    ) -> None:
        # the chunk names the first ones only, and counts all; besides, it counts notes
        found.counts.update({key: n for key, n in out.counts.items() if key in REASONS})
        for problem in out.dropped:
            if len(found.left_out) < LISTED:
                place = place_of(reading.files, chunk.first_file + problem.file, problem.offset)
                row = LeftOut(found.place, place, problem.reason, problem.detail)
                found.left_out.append(row)
        if found.counts[BAD] and self._data.on_bad_record == "stop" and STOPS not in found.notes:
            found.notes.append(STOPS)


def _is_hopeless(found: SourcePreview, first: int) -> bool:
    return not found.seen and found.num_records - first > MOST_LEFT_OUT
