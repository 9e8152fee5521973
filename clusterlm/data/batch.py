"""Items -> tokens: encoded together, then laid behind each other with what goes around them.

No Python object per token: the engine gives one flat array, each document is one slice of it that
is copied to its place, and its end-of-text token stands there already.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clusterlm.data.items import Item
from clusterlm.data.store.documents import (
    BAD,
    DOCUMENT,
    NO_DOMAIN,
    Codes,
    Documents,
    EncodedChunk,
    Ids,
    Numbers,
    Problem,
    TokenArray,
)
from clusterlm.data.targets import weight_table
from clusterlm.data.tokenizer import Vocabulary
from clusterlm.data.tokens.engines import Engine
from clusterlm.data.tokens.token_masks import TokenMasks
from clusterlm.spec.sources import ConversationSource, Source


class Batches:
    """Encodes the items of one chunk, some at a time."""

    def __init__(
        self,
        source: Source,
        vocabulary: Vocabulary,
        engine: Engine,
        masks: TokenMasks,
        out: EncodedChunk,
    ) -> None:
        self._vocabulary, self._engine, self._masks = vocabulary, engine, masks
        self._out = out
        self._dtype = out.tokens.dtype
        self._conversations = source if isinstance(source, ConversationSource) else None
        self._is_special = vocabulary.is_special
        self._tokens: list[TokenArray] = []
        self._codes: list[Codes] = []
        self._rows: list[Documents] = []
        self._domains: dict[str, int] = {}
        # the code of the largest weight, mostly 1
        table = weight_table(source) if isinstance(source, ConversationSource) else ()
        self._full_code = len(table) - 1
        self._num_before = 0

    def encode(self, items: Sequence[Item]) -> None:
        """Encode some items and add them."""
        texts = [text for item in items for text in item.texts]
        ids, ends = self._engine.encode(texts)
        last = np.cumsum([len(item.texts) for item in items]) - 1
        item_ends = ends[last]
        if self._conversations is None:
            self._add(items, ids, item_ends, None)
            return
        # texts of an own converter have one target: everything
        targets = [item.targets or [] for item in items]
        codes = self._masks.codes(texts, targets, ids, ends)
        self._add(items, ids, item_ends, codes)

    def finish(self) -> EncodedChunk:
        """The chunk with everything that was added."""
        out = self._out
        out.tokens = np.concatenate([out.tokens, *self._tokens])
        out.documents = np.concatenate([out.documents, *self._rows])
        out.domains = list(self._domains)
        if self._conversations is not None:
            out.codes = np.concatenate([np.zeros(0, dtype=np.uint8), *self._codes])
        return out

    def _add(self, items: Sequence[Item], ids: Ids, ends: Numbers, codes: Codes | None) -> None:
        prefix = np.array(self._vocabulary.prefix, dtype=self._dtype)
        tokens = np.empty(len(ids) + len(items) * (len(prefix) + 1), dtype=self._dtype)
        marks = None if codes is None else np.zeros(len(tokens), dtype=np.uint8)
        kept: list[Item] = []
        lengths: list[int] = []
        trained: list[int] = []
        place = begin = 0
        for item, end in zip(items, ends.tolist(), strict=True):
            first, words = place, slice(begin, end)
            before, behind = self._around(item, ids[words], None if codes is None else codes[words])
            if before:
                tokens[place : place + len(prefix)] = prefix
                place += len(prefix)
            there = slice(place, place + end - begin)
            tokens[there] = ids[words]
            place = there.stop + (behind > 0)
            if behind:
                tokens[place - 1] = self._vocabulary.eos_id
            count = 0
            if marks is not None and codes is not None:
                marks[there], marks[there.stop : place] = codes[words], behind
                if item.targets is None:
                    # a text among conversations is trained as a whole
                    marks[first:place] = self._full_code
                # the first token of a sample is predicted from nothing
                count = int(np.count_nonzero(marks[first + 1 : place]))
            begin = end
            if why := self._refusal(item, place - first, count):
                self._num_before = sum(map(len, self._rows)) + len(kept)
                self._leave_out(item, *why)
                if marks is not None:
                    marks[first:place] = 0
                place = first
                continue
            kept.append(item)
            lengths.append(place - first)
            trained.append(count)
        self._rows.append(self._documents(kept, lengths, trained))
        self._tokens.append(tokens[:place])
        if marks is not None:
            self._codes.append(marks[:place])

    def _documents(
        self, items: Sequence[Item], lengths: Sequence[int], trained: Sequence[int]
    ) -> Documents:
        rows = np.zeros(len(items), dtype=DOCUMENT)
        rows["length"], rows["trained"] = lengths, trained
        digests = b"".join(item.digest for item in items)
        # "<u8": the same on a big-endian machine
        rows["digest"] = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
        for name in ("offset", "file", "record", "flags"):
            rows[name] = [getattr(item, name) for item in items]
        rows["domain"] = [self._domain(item.domain) for item in items]
        return rows

    def _leave_out(self, item: Item, reason: str, detail: str) -> None:
        place = (item.file, item.offset)
        self._out.leave_out(Problem(*place, reason, detail, item.record, self._num_before))

    def _around(self, item: Item, ids: Ids, codes: Codes | None) -> tuple[bool, int]:
        """Whether the prefix goes before it; the code of the end-of-text token behind it, or 0."""
        if item.targets is None:
            return item.has_prefix, int(item.has_end)
        source, prefix = self._conversations, self._vocabulary.prefix
        assert source is not None
        assert codes is not None
        before = source.add_bos and tuple(ids[: len(prefix)].tolist()) != prefix
        if not source.add_eos:
            return before, 0
        trained = np.flatnonzero(codes)
        if not len(trained) or self._is_special[ids[trained[-1]]]:
            return before, 0
        return before, int(codes[trained[-1]])

    def _refusal(self, item: Item, num_tokens: int, num_trained: int) -> tuple[str, str] | None:
        """Why an encoded conversation is left out."""
        source = self._conversations
        if source is None or item.targets is None:
            return None
        if source.max_tokens is not None and num_tokens > source.max_tokens:
            return "too_many_tokens", f"{num_tokens} tokens, more than max_tokens"
        if not num_trained:
            return BAD, "nothing to train in it: no token of a trained role is left"
        return None

    def _domain(self, domain: str | None) -> int:
        if domain is None:
            return NO_DOMAIN
        return self._domains.setdefault(domain, len(self._domains))
