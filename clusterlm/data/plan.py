"""Which blocks are trained on and which are validated on, from the table of kept documents.

too long -> split -> mix -> order -> blocks -> order of blocks

Nothing is copied and no text is read; tokens only by paragraph_start, and only once. So another
block size, split, mix or packing is a matter of seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clusterlm.data.mix import (
    SourceShare,
    epochs_of_sources,
    repeats_of_documents,
    tokens_of_sources,
)
from clusterlm.data.order import shuffled
from clusterlm.data.overlong import Losses, fit_conversations, refuse_overlong
from clusterlm.data.pack import Plan, join_plans, pad_documents, shuffle_blocks, with_isolation
from clusterlm.data.pack_fit import fit_documents
from clusterlm.data.pack_stream import (
    DocumentStarts,
    LegalStarts,
    concat_blocks,
    find_paragraphs,
    start_blocks,
)
from clusterlm.data.split import split_documents
from clusterlm.data.store.documents import Numbers
from clusterlm.data.table import Table, TokenView
from clusterlm.data.tokens.token_bytes import NewlineTokens
from clusterlm.errors import DataError
from clusterlm.spec.data import Data


@dataclass(frozen=True)
class SourceUse:
    """What a split takes of a source.

    Attributes:
        documents: distinct ones that are seen.
        tokens: trained tokens of one pass, before blocks are made of them.
        epochs: how often the source is seen in one pass, as asked for.
    """

    place: str
    documents: int
    tokens: int
    epochs: float


@dataclass(frozen=True)
class SplitPlan:
    """The blocks of one split.

    Attributes:
        num_documents: distinct documents; one that is seen twice counts once.
        num_tokens: in blocks, in one pass.
        num_supervised: of these, the ones the loss is made of; exactly the labels that are set.
        num_padding: places in blocks that hold no token.
        lost: tokens that are in no block, by reason; see `Plan.lost` and `Losses`.
        dropped: documents that are left out or cut, by reason: those of `Losses`, and
            `not_sampled`, not seen at all since the source is seen less than once.
        sources: one each in reading order.
    """

    plan: Plan
    num_documents: int
    num_tokens: int
    num_supervised: int
    num_padding: int
    lost: Mapping[str, int]
    dropped: Mapping[str, int]
    sources: Sequence[SourceUse]


def plan_splits(
    table: Table,
    data: Data,
    sources: Sequence[SourceShare],
    newline: NewlineTokens,
    tokens: TokenView,
) -> dict[str, SplitPlan]:
    """`train`, and `validation` if the spec holds something back; neither is empty.

    Args:
        table: the kept documents, in reading order.
        data: the spec.
        sources: what `table.source` counts in.
        newline: of the tokenizer; looked at by paragraph_start only.
        tokens: of all shards.

    Raises:
        DataError: the documents fill no block.
        OverlongConversation: there is one, and `data.overlong` is `error`.
    """
    refuse_overlong(table, data)
    table = table.where(table.lengths > 0)
    for_all = data.validation.fraction
    fractions = [for_all if s.validation is None else s.validation for s in sources]
    train, validation = split_documents(table, fractions)
    # each side on its own, so that each tells what it lost
    fitted, losses = fit_conversations(train, data, tokens)
    planner = _Planner(data, sources, _legal_starts(table, data, newline, tokens), tokens)
    splits = {"train": planner.plan_train(fitted, losses)}
    if not splits["train"].plan.num_blocks:
        raise DataError(_no_block(fitted, losses, data.block_size))
    if data.validation.sources or any(fractions):
        fitted, losses = fit_conversations(validation, data, tokens)
        splits["validation"] = planner.plan_validation(fitted, losses)
        if not splits["validation"].plan.num_blocks:
            side = "the validation set: "
            raise DataError(side + _no_block(fitted, losses, data.block_size))
    return splits


def _no_block(table: Table, losses: Losses, block_size: int) -> str:
    found = f"{len(table)} documents of {int(table.lengths.sum())} tokens fill no block of"
    found = f"{found} data.block_size {block_size}"
    if not len(table) and (overlong := losses.documents.get("overlong")):
        return (
            f"{found}: all {overlong} conversations are longer; make the block larger, or set"
            " data.overlong: truncate"
        )
    return f"{found}; give more data, or make the block smaller"


def _legal_starts(
    table: Table, data: Data, newline: NewlineTokens, tokens: TokenView
) -> LegalStarts:
    """Where blocks may begin, for the packings that ask."""
    if data.packing != "paragraph_start":
        return DocumentStarts(data.block_size)
    texts = table.where(~table.is_chat)
    return find_paragraphs(texts.starts, texts.lengths, newline, tokens)


@dataclass(frozen=True)
class _Planner:
    """What both splits need."""

    data: Data
    sources: Sequence[SourceShare]
    legal: LegalStarts
    tokens: TokenView

    def plan_train(self, table: Table, losses: Losses) -> SplitPlan:
        """Mixed and shuffled."""
        num_tokens = tokens_of_sources(table, len(self.sources)).tolist()
        epochs = epochs_of_sources(num_tokens, self.sources, self.data.mix.temperature)
        repeats = repeats_of_documents(table, epochs)
        chosen = np.repeat(np.arange(len(table)), repeats)
        order = chosen[shuffled(len(chosen), self.data.seed)]
        split = self._plan(table, order, epochs, losses, keep_tail=False)
        return replace(split, plan=shuffle_blocks(split.plan, self.data.seed))

    def plan_validation(self, table: Table, losses: Losses) -> SplitPlan:
        """Everything once, in reading order; one block of few tokens is better than none."""
        once = [1.0] * len(self.sources)
        return self._plan(table, np.arange(len(table)), once, losses, keep_tail=True)

    def _plan(
        self,
        table: Table,
        order: Numbers,
        epochs: Sequence[float],
        losses: Losses,
        *,
        keep_tail: bool,
    ) -> SplitPlan:
        is_chat = table.is_chat[order]
        of_texts = self._text_blocks(table, order[~is_chat], keep_tail=keep_tail)
        of_chats = self._chat_blocks(table, order[is_chat])
        plan = join_plans([of_texts, of_chats])
        seen = np.zeros(len(table), dtype=np.int64)
        np.add.at(seen, order, 1)
        dropped = Counter(losses.documents) + Counter(not_sampled=int((seen == 0).sum()))
        return SplitPlan(
            plan=plan,
            num_documents=int((seen > 0).sum()),
            num_tokens=plan.num_tokens,
            num_supervised=of_texts.num_tokens
            - of_texts.num_unpredicted
            + self._num_trained(table, order[is_chat]),
            num_padding=plan.num_blocks * self.data.block_size - plan.num_tokens,
            lost=dict(Counter(losses.tokens) + Counter(plan.lost)),
            dropped=dict(dropped),
            sources=self._use(table, seen, epochs),
        )

    def _text_blocks(self, table: Table, order: Numbers, *, keep_tail: bool) -> Plan:
        packing, size = self.data.packing, self.data.block_size
        starts, lengths = table.starts[order], table.lengths[order]
        if packing == "best_fit":
            plan = fit_documents(starts, lengths, size)
        elif packing == "padded":
            plan = pad_documents(starts, lengths, size)
        elif packing == "concat" or lengths.sum() < size:
            is_short = keep_tail and bool(lengths.sum() < size)
            plan = concat_blocks(starts, lengths, size, keep_tail=is_short)
        else:
            plan = start_blocks(starts, lengths, self.legal, size)
        return with_isolation(plan, self.data.isolate_documents)

    def _chat_blocks(self, table: Table, order: Numbers) -> Plan:
        pack = pad_documents if self.data.packing == "padded" else fit_documents
        return pack(table.starts[order], table.lengths[order], self.data.block_size)

    def _num_trained(self, table: Table, order: Numbers) -> int:
        """Trained tokens of conversations, but for first ones: nothing predicts these."""
        if not len(order):
            return 0
        ones = np.ones(len(order), dtype=np.int64)
        first = self.tokens.count_trained(table.starts[order], ones)
        return int((table.trained[order] - first).sum())

    def _use(self, table: Table, seen: Numbers, epochs: Sequence[float]) -> list[SourceUse]:
        count = len(self.sources)
        documents = np.bincount(table.source[seen > 0], minlength=count)
        tokens = np.bincount(table.source, weights=table.num_supervised * seen, minlength=count)
        return [
            SourceUse(source.place, int(documents[i]), int(tokens[i]), epochs[i])
            for i, source in enumerate(self.sources)
        ]
