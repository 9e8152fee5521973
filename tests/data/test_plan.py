from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.data.mix import SourceShare
from clusterlm.data.overlong import OverlongConversation, fit_conversations
from clusterlm.data.pack import PLAN_COLUMNS
from clusterlm.data.plan import SplitPlan, plan_splits
from clusterlm.data.table import Table
from clusterlm.errors import DataError
from tests.data.tables import NEWLINE, Tokens, blocks_of, data_of, table_of

PACKINGS = ["concat", "document_start", "paragraph_start", "best_fit", "padded"]


@st.composite
def corpora(draw: st.DrawFn) -> tuple[Table, Tokens]:
    """Texts and conversations of three sources; the last one is a validation source or not."""
    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=40))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, total = len(lengths), sum(lengths)
    source = random.integers(0, 3, count)
    bits = random.random(total) < 0.7
    tokens = Tokens(random.integers(0, 60, total).astype(np.uint16), bits)
    table = table_of(
        lengths,
        keys=random.integers(0, 2**63, count).tolist(),
        source=source.tolist(),
        is_chat=(source == 1).tolist(),
        is_held_back=((source == 2) & draw(st.booleans())).tolist(),
    )
    trained = np.where(table.is_chat, tokens.count_trained(table.starts, table.lengths), 0)
    columns = {**vars(table), "trained": trained}
    return Table(**columns), tokens


def _splits(corpus: tuple[Table, Tokens], **values: Any) -> dict[str, SplitPlan]:
    table, tokens = corpus
    shares = values.pop("shares", [SourceShare(f"data.sources[{i}]") for i in range(3)])
    if table.is_held_back.any():
        values["validation"] = {"sources": [{"kind": "text", "path": "y"}]}
    data = data_of(**values)
    try:
        return plan_splits(table, data, shares, NEWLINE, tokens)
    except DataError as error:
        if "fill no block" in str(error) or "cannot be held back" in str(error):
            return {}
        raise


def _seen(split: SplitPlan) -> Counter[int]:
    """How often each address is in a block."""
    return Counter(token for block in blocks_of(split.plan) for token in block)


@given(corpora(), st.sampled_from(PACKINGS), st.sampled_from([8, 12, 64]))
def test_what_is_in_no_block_is_reported_and_nothing_is_there_twice(
    corpus: tuple[Table, Tokens], packing: str, block_size: int
) -> None:
    table, _ = corpus
    splits = _splits(corpus, packing=packing, block_size=block_size)
    for name, split in splits.items():
        held_back = name == "validation"
        side = table.lengths[table.is_held_back == held_back].sum()
        seen = _seen(split)
        assert not seen or max(seen.values()) == 1
        assert len(seen) == split.num_tokens == split.plan.num_tokens
        assert split.num_tokens + sum(split.lost.values()) == side
        assert split.num_padding == split.plan.num_blocks * block_size - split.num_tokens
        assert set(split.lost) <= {"tail", "between", "overlong"}
    if packing in ("best_fit", "padded"):
        assert all(set(split.lost) <= {"overlong"} for split in splits.values())


@given(corpora(), st.sampled_from(PACKINGS), st.booleans())
def test_blocks_hold_texts_or_whole_conversations(
    corpus: tuple[Table, Tokens], packing: str, isolate: bool
) -> None:
    table, _ = corpus
    is_chat = np.repeat(table.is_chat, table.lengths)
    spans = {
        (int(s), int(n))
        for s, n, chat in zip(table.starts, table.lengths, table.is_chat, strict=True)
        if chat
    }
    for split in _splits(corpus, packing=packing, isolate_documents=isolate).values():
        plan = split.plan
        assert (plan.lengths > 0).all()
        for b, block in enumerate(blocks_of(plan)):
            assert 0 < len(block) <= 8
            (chat,) = {bool(is_chat[token]) for token in block}
            assert plan.isolated[b] == (isolate or chat)
            segments = range(int(plan.offsets[b]), int(plan.offsets[b + 1]))
            if chat:
                assert {(int(plan.starts[s]), int(plan.lengths[s])) for s in segments} <= spans
                assert packing != "padded" or len(segments) == 1


@given(corpora(), st.sampled_from(PACKINGS), st.integers(0, 2**32 - 1))
def test_same_seed_same_blocks(corpus: tuple[Table, Tokens], packing: str, seed: int) -> None:
    first, again = (_splits(corpus, packing=packing, seed=seed) for _ in range(2))
    assert first.keys() == again.keys()
    for name, split in first.items():
        for column in PLAN_COLUMNS:
            assert (getattr(split.plan, column) == getattr(again[name].plan, column)).all()


@pytest.mark.parametrize("packing", PACKINGS)
def test_another_seed_gives_another_order(packing: str) -> None:
    table, tokens = table_of([7, 8, 9] * 30), Tokens(np.full(720, 50, dtype=np.uint16))
    first, other = (_splits((table, tokens), packing=packing, seed=seed) for seed in (1, 2))
    assert blocks_of(first["train"].plan) != blocks_of(other["train"].plan)
    if packing in ("best_fit", "padded"):
        assert _seen(first["train"]) == _seen(other["train"])


@given(corpora(), st.sampled_from(PACKINGS), st.lists(st.sampled_from([0.5, 1, 2.5]), min_size=3))
def test_sources_are_seen_as_often_as_asked_for(
    corpus: tuple[Table, Tokens], packing: str, epochs: list[float]
) -> None:
    table, _ = corpus
    shares = [SourceShare(str(i), epochs=epochs[i]) for i in range(3)]
    splits = _splits(corpus, packing=packing, shares=shares, block_size=30)
    if not splits:
        return
    split = splits["train"]
    assert [use.epochs for use in split.sources] == epochs[:3]
    times = _seen(split)
    for source in range(3):
        rows = (table.source == source) & ~table.is_held_back
        allowed = {0, int(epochs[source]), int(np.ceil(epochs[source]))}
        for start in table.starts[rows].tolist():
            # some tokens may be lost to the cut of the stream
            whole = packing in ("best_fit", "padded")
            assert times[start] in allowed if whole else times[start] <= max(allowed)
    assert sum(use.documents for use in split.sources) == split.num_documents
    unseen = split.dropped.get("not_sampled", 0)
    assert split.num_documents + unseen == int((~table.is_held_back).sum())


@given(corpora(), st.sampled_from(PACKINGS), st.sampled_from([0.2, 0.5]))
def test_a_fraction_holds_back_and_parts_the_tokens(
    corpus: tuple[Table, Tokens], packing: str, fraction: float
) -> None:
    table, tokens = corpus
    corpus = Table(**{**vars(table), "is_held_back": np.zeros(len(table), np.bool_)}), tokens
    splits = _splits(corpus, packing=packing, validation={"fraction": fraction}, block_size=30)
    if splits:
        train, validation = splits["train"], splits["validation"]
        assert validation.plan.num_blocks
        assert not set(_seen(train)) & set(_seen(validation))


def test_a_validation_of_less_than_a_block_is_one_short_block() -> None:
    table = table_of([20, 3, 2], source=[0, 1, 1], is_held_back=[False, True, True])
    splits = _splits((table, Tokens(np.zeros(25, dtype=np.uint16))), block_size=10)
    assert blocks_of(splits["validation"].plan) == [[20, 21, 22, 23, 24]]
    assert splits["validation"].num_padding == 5


def test_documents_that_fill_no_block_are_told() -> None:
    table = table_of([3, 4])
    with pytest.raises(DataError, match=r"2 documents of 7 tokens fill no block .* 8;"):
        plan_splits(table, data_of(), [SourceShare("a")], NEWLINE, Tokens(np.zeros(7)))


def test_weights_make_shares_of_the_trained_tokens() -> None:
    table = table_of([4] * 3000, source=[0] * 2000 + [1] * 1000)
    shares = [SourceShare("a", weight=1), SourceShare("b", weight=3)]
    tokens = Tokens(np.zeros(12_000, dtype=np.uint16))
    split = plan_splits(table, data_of(), shares, NEWLINE, tokens)["train"]
    a, b = split.sources
    assert (a.epochs, b.epochs) == pytest.approx((0.375, 2.25))
    assert b.tokens / (a.tokens + b.tokens) == pytest.approx(0.75, abs=0.02)
    assert a.tokens + b.tokens == pytest.approx(12_000, rel=0.05)


def _chats() -> tuple[Table, Tokens]:
    """Of 5, 12, 20 and 9 tokens; of the third only the end is trained."""
    bits = np.array([0, 0, 1, 1, 1] + [0] * 4 + [1] * 8 + [0] * 12 + [1] * 8 + [1] * 9, np.bool_)
    table = table_of([5, 12, 20, 9], is_chat=[True] * 4, trained=[3, 8, 8, 9])
    return table, Tokens(np.arange(46, dtype=np.uint16), bits)


def test_overlong_conversations_are_dropped() -> None:
    split = _splits(_chats(), block_size=10)["train"]
    assert split.lost == {"overlong": 32}
    assert split.dropped == {"overlong": 2}
    # 3 + 9, but for the first token of the last one, which nothing predicts
    assert split.num_supervised == 11


def test_overlong_conversations_are_cut_and_those_left_with_nothing_to_train_are_dropped() -> None:
    split = _splits(_chats(), block_size=10, overlong="truncate")["train"]
    assert split.lost == {"truncated": 2, "untrained": 20}
    assert split.dropped == {"truncated": 1, "untrained": 1}
    assert sorted(map(len, blocks_of(split.plan))) == [5, 9, 10]
    assert split.num_supervised == 3 + 6 + 8


def test_a_conversation_of_which_only_the_first_token_is_left_is_untrained() -> None:
    table = table_of([12], is_chat=[True], trained=[2])
    bits = np.zeros(12, dtype=np.bool_)
    bits[[0, 11]] = True
    cut, losses = fit_conversations(table, data_of(overlong="truncate"), Tokens(np.zeros(12), bits))
    assert len(cut) == 0
    assert losses.documents == {"untrained": 1}


def test_an_overlong_conversation_can_stop_the_run_and_is_named() -> None:
    table, tokens = _chats()
    with pytest.raises(
        OverlongConversation, match="12 tokens is longer than data.block_size 10"
    ) as e:
        plan_splits(table, data_of(block_size=10, overlong="error"), [], NEWLINE, tokens)
    assert e.value.row == 1
    assert pickle.loads(pickle.dumps(e.value)).row == 1


def test_texts_are_never_too_long() -> None:
    table, tokens = table_of([30, 4]), Tokens(np.zeros(34, dtype=np.uint16))
    for overlong in ("drop", "truncate", "error"):
        split = _splits((table, tokens), overlong=overlong)["train"]
        assert split.num_tokens == 32


def test_each_side_tells_what_it_lost_itself() -> None:
    lengths = [40] * 30 + [6] * 60
    table = table_of(lengths, is_chat=[True] * 90, trained=[3] * 90)
    tokens = Tokens(np.zeros(sum(lengths)), np.ones(sum(lengths), dtype=np.bool_))
    data = data_of(block_size=16, validation={"fraction": 0.3}, packing="best_fit")
    splits = plan_splits(table, data, [SourceShare("a")], NEWLINE, tokens)
    lost = {name: split.dropped["overlong"] for name, split in splits.items()}
    assert sum(lost.values()) == 30
    assert min(lost.values()) > 0
    for name, split in splits.items():
        assert split.lost["overlong"] == 40 * lost[name]


def test_when_all_conversations_are_too_long_the_advice_is_a_larger_block() -> None:
    table = table_of([40, 50], is_chat=[True, True], trained=[3, 3])
    tokens = Tokens(np.zeros(90), np.ones(90, dtype=np.bool_))
    with pytest.raises(DataError, match="all 2 conversations are longer; make the block larger"):
        plan_splits(table, data_of(block_size=16), [SourceShare("a")], NEWLINE, tokens)
