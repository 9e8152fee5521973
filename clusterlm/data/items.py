"""Records of a chunk -> what is to be encoded, or why a record is left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from clusterlm.data.chat import ChatTemplate
from clusterlm.data.convert import BadRecord, Conversation, Dropped, converter_of, domain_of
from clusterlm.data.dedup import digest_of, digest_of_pieces
from clusterlm.data.formats import chunks
from clusterlm.data.formats.chunks import Chunk, Record
from clusterlm.data.kinds.written import as_json, encoded
from clusterlm.data.sources import read_records
from clusterlm.data.store.documents import (
    BAD,
    BROKEN,
    CONTINUES,
    CONVERSATION,
    EncodedChunk,
    Problem,
)
from clusterlm.data.targets import Target, Targets
from clusterlm.data.tokens.long_text import Cutter
from clusterlm.spec.sources import ConversationSource, Source

NO_DIGEST = b"\0" * 16
"""Of a piece without words: it adds nothing to what stands for its document."""


@dataclass
class Item:
    """One document on its way, or a piece of a long one.

    Attributes:
        texts: its text, cut where it is long.
        digest: 16 bytes of the content.
        targets: of a conversation: what is trained.
        flags: of DOCUMENT.
        has_prefix, has_end: the tokenizer's prefix, the end-of-text token around it.
    """

    texts: list[str]
    digest: bytes
    file: int
    offset: int
    record: int
    domain: str | None = None
    targets: list[Target] | None = None
    flags: int = 0
    has_prefix: bool = True
    has_end: bool = True

    @property
    def num_chars(self) -> int:
        return sum(map(len, self.texts))


class SourceItems:
    """Turns the records of one source into items."""

    def __init__(
        self,
        source: Source,
        template: ChatTemplate | None,
        cutter: Cutter | None,
        piece_bytes: int,
    ) -> None:
        """Template: for conversations; cutter: where long texts may be cut, if they may."""
        self._convert = converter_of(source)
        self._has_domain = source.domain is not None
        self._source = source
        self._cutter = cutter
        self._piece_bytes = piece_bytes
        self._template = template
        self._targets = Targets(source) if isinstance(source, ConversationSource) else None

    def of(self, chunk: Chunk, out: EncodedChunk) -> Iterator[Item]:
        """The items of a chunk, in order; what is left out is noted in `out`."""
        num_items = 0
        for number, read in enumerate(read_records(chunk, self._cutter)):
            record = read._replace(file=read.file - chunk.first_file) if chunk.first_file else read
            # the pieces of a long text are one record, which begins with the first of them
            out.num_records += not chunk.is_piece or chunk.start == 0
            try:
                if record.problem is not None:
                    raise BadRecord(record.problem)
                items = self._items(chunk, record, number, out)
            except Dropped as dropped:
                why = (dropped.reason, dropped.detail)
            except BadRecord as bad:
                why = (BAD, str(bad))
            else:
                num_items += len(items)
                yield from items
                continue
            out.leave_out(Problem(record.file, record.offset, *why, number, num_items))
            if chunk.is_piece:
                flags = BROKEN | (CONTINUES if chunk.start else 0)
                yield Item([""], NO_DIGEST, record.file, record.offset, number, flags=flags)

    def _items(self, chunk: Chunk, record: Record, number: int, out: EncodedChunk) -> list[Item]:
        if chunk.is_piece:
            return self._piece(chunk, record)
        content = self._convert(record.value)
        if isinstance(content, str):
            items = [self._text(content, record, number)]
        else:
            out.counts.update(content.notes)
            several = (content, *content.further)
            items = [self._conversation(one, record, number) for one in several]
        if self._has_domain:
            domain = domain_of(record.value, self._source)
            for item in items:
                item.domain = domain
        return items

    def _conversation(self, content: Conversation, record: Record, number: int) -> Item:
        assert self._targets is not None
        assert self._template is not None
        messages, tools = content.messages, content.tools
        # before they are rendered: a template may not come to an end with what is no JSON.
        # The words and not their rendering: another template must not move the split
        digest = digest_of(as_json([messages, tools]))
        try:
            rendered = self._template.render_with_spans(messages, tools)
        except ValueError as error:
            # a template may refuse what others take: roles, an order of turns
            raise Dropped("refused_by_template", str(error)) from error
        # what the template itself says is text as a rule
        _ = rendered.text.isascii() or encoded(rendered.text)
        targets = self._targets.of(rendered, messages)
        if not targets:
            raise BadRecord(
                "nothing to train in it: the chat template shows no words of a trained role,"
                " or all of them have weight 0"
            )
        item = Item([rendered.text], digest, record.file, record.offset, number)
        item.targets, item.flags = targets, CONVERSATION
        return item

    def _text(self, text: str, record: Record, number: int) -> Item:
        raw = encoded(text)
        file, offset = record.file, record.offset
        texts = self._cut(text, raw)
        return Item(texts, self._digest(raw), file, offset, number)

    def _cut(self, text: str, raw: bytes, *, is_start: bool = True) -> list[str]:
        if self._cutter is None or len(raw) <= self._piece_bytes:
            return [text]
        pieces = self._cutter.cut_text(raw, is_start=is_start, piece_bytes=self._piece_bytes)
        return [piece.decode() for piece in pieces]

    def _digest(self, raw: bytes) -> bytes:
        """What stands for a document; the same for a row and for a file that comes in pieces."""
        if self._cutter is None or len(raw) <= chunks.CHUNK_BYTES:
            return digest_of(raw)
        grid = range(chunks.CHUNK_BYTES, len(raw), chunks.CHUNK_BYTES)
        bounds = [0, *(self._cutter.next_cut(raw, place) for place in grid), len(raw)]
        pieces = [raw[a:b] for a, b in pairwise(bounds) if a < b]
        return digest_of_pieces([digest_of(piece) for piece in pieces])

    def _piece(self, chunk: Chunk, record: Record) -> list[Item]:
        """A piece of a long file; the rows of its pieces are joined when documents are chosen."""
        text = str(record.value)
        is_first = chunk.start == 0
        if not text and not is_first and not chunk.is_last:
            return []
        raw = text.encode()
        digest = digest_of(raw) if raw else NO_DIGEST
        texts = self._cut(text, raw, is_start=is_first)
        item = Item(texts, digest, record.file, record.offset, 0)
        item.flags = 0 if is_first else CONTINUES
        item.has_prefix, item.has_end = is_first, chunk.is_last
        return [item]
