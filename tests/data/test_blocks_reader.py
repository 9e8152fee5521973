from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterlm.data.blocks import IGNORE_INDEX, Blocks
from clusterlm.data.mix import SourceShare
from clusterlm.data.pack import Plan, join_plans, pad_documents, with_isolation
from clusterlm.data.pack_fit import fit_documents
from clusterlm.data.pack_stream import concat_blocks
from clusterlm.data.plan import plan_splits
from clusterlm.data.store.shard_files import ShardFiles
from clusterlm.data.store.storage import READ_ENV
from clusterlm.data.table import Table
from tests.data.tables import NEWLINE, data_of, open_blocks, table_of, write_shards

PAD, SIZE = 99, 12
WEIGHTS = (0.0, 1.0, 0.25)


def _expected(
    plan: Plan,
    block: int,
    tokens: list[int],
    bits: list[bool],
    weights: list[float],
) -> dict[str, list[Any]]:
    """A block by the rules, token by token."""
    ids, labels, positions, counts = [], [], [], []
    for s in range(int(plan.offsets[block]), int(plan.offsets[block + 1])):
        for i in range(int(plan.lengths[s])):
            token = int(plan.starts[s]) + i
            restarts = (i == 0 and bool(plan.isolated[block])) or not ids
            positions.append(0 if restarts else positions[-1] + 1)
            ids.append(tokens[token])
            labels.append(tokens[token] if bits[token] and not restarts else IGNORE_INDEX)
            counts.append(weights[token])
    room = SIZE - len(ids)
    return {
        "input_ids": ids + [PAD] * room,
        "labels": labels + [IGNORE_INDEX] * room,
        "position_ids": positions + [*range(room)],
        "loss_weights": counts + [1.0] * room,
    }


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
@pytest.mark.parametrize("way", ["mmap", "pread"])
@pytest.mark.parametrize("role_weights", [False, True])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 30), min_size=2, max_size=30),
    seed=st.integers(0, 2**32 - 1),
    isolate=st.booleans(),
)
def test_a_batch_holds_what_the_rules_say(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    role_weights: bool,
    dtype: str,
    lengths: list[int],
    seed: int,
    isolate: bool,
) -> None:
    monkeypatch.setenv(READ_ENV, way)
    draw = np.random.default_rng(seed)
    table, total = table_of(lengths), sum(lengths)
    num_texts = int(draw.integers(0, len(lengths) + 1))
    first_chat = sum(lengths[:num_texts])
    tokens = draw.integers(0, 60_000, total).tolist()
    bits = [i < first_chat or bool(draw.random() < 0.6) for i in range(total)]
    codes = draw.integers(0, 3, total).tolist()
    # shards end where documents do; those of conversations have bits
    ends = np.cumsum(lengths)[:-1].tolist()
    cuts = sorted({first_chat, *draw.choice(ends, 2).tolist()} - {0, total})
    with_bits = cuts.index(first_chat) + 1 if first_chat in cuts else 0 if not first_chat else 99
    shards = write_shards(
        tmp_path,
        tokens,
        cuts,
        bits=bits,
        codes=codes if role_weights else None,
        weights=WEIGHTS,
        with_bits_from=with_bits,
        dtype=dtype,
    )
    texts, chats = table.where(np.arange(len(lengths)) < num_texts), None
    chats = table.where(np.arange(len(lengths)) >= num_texts)
    plan = join_plans(
        [
            with_isolation(concat_blocks(texts.starts, texts.lengths, SIZE), isolate),
            with_isolation(pad_documents(texts.starts, texts.lengths, SIZE), isolate),
            fit_documents(chats.starts, chats.lengths, SIZE),
        ]
    )
    blocks = open_blocks(tmp_path, plan, shards, SIZE, PAD)
    has_weights = role_weights and with_bits < 99
    assert blocks.has_weights == has_weights
    weights = [WEIGHTS[code] if i >= first_chat else 1.0 for i, code in enumerate(codes)]
    indices = draw.integers(0, len(blocks), 5).tolist()
    batch = blocks.batch(indices)
    assert set(batch) == {"input_ids", "labels", "position_ids"} | (
        {"loss_weights"} if has_weights else set()
    )
    for row, index in enumerate(indices):
        for name, values in _expected(plan, index, tokens, bits, weights).items():
            if name in batch:
                assert batch[name][row].tolist() == values


@pytest.fixture
def blocks(tmp_path: Path) -> Blocks:
    table = table_of([7, 3, 9, 14, 2, 5])
    shards = write_shards(tmp_path, [*range(40)], [19])
    return open_blocks(tmp_path, fit_documents(table.starts, table.lengths, SIZE), shards, SIZE)


def test_a_batch_is_ready_for_torch(blocks: Blocks) -> None:
    batch = blocks.batch([0, 1])
    for array in batch.values():
        assert array.dtype == np.int32
        assert array.shape == (2, SIZE)
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_blocks_come_one_by_one_too(blocks: Blocks) -> None:
    batch = blocks.batch([2, 0])
    for row, index in enumerate([2, 0]):
        for name, array in blocks[index].items():
            assert (batch[name][row] == array).all()
    assert len(list(blocks)) == len(blocks)
    assert (blocks[-1]["input_ids"] == blocks[len(blocks) - 1]["input_ids"]).all()


@pytest.mark.parametrize("wrong", [4, -5, 100])
def test_a_block_that_is_not_there_is_named(blocks: Blocks, wrong: int) -> None:
    assert len(blocks) == 4
    with pytest.raises(IndexError, match=f"block {wrong} of 4"):
        blocks.batch([0, wrong])


def test_blocks_travel_to_a_worker_without_their_tokens(blocks: Blocks) -> None:
    first = blocks[0]
    sent = pickle.dumps(blocks)
    assert len(sent) < 5000
    assert (pickle.loads(sent)[0]["input_ids"] == first["input_ids"]).all()


def test_what_is_announced_changes_nothing(blocks: Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not blocks.reads_ahead
    monkeypatch.setenv(READ_ENV, "pread")
    asked = pickle.loads(pickle.dumps(blocks))
    assert asked.reads_ahead
    asked.will_need([1, 3])
    asked.will_need([])
    assert (asked.batch([1, 3])["input_ids"] == blocks.batch([1, 3])["input_ids"]).all()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=25),
    seed=st.integers(0, 2**32 - 1),
    packing=st.sampled_from(["concat", "document_start", "best_fit", "padded"]),
    isolate=st.booleans(),
    overlong=st.sampled_from(["drop", "truncate"]),
)
def test_the_plan_counts_exactly_the_labels_that_are_set(
    tmp_path: Path, lengths: list[int], seed: int, packing: str, isolate: bool, overlong: str
) -> None:
    draw = np.random.default_rng(seed)
    num_texts = int(draw.integers(1, len(lengths) + 1))
    lengths[0] += SIZE
    total, first_chat = sum(lengths), sum(lengths[:num_texts])
    bits = [i < first_chat or bool(draw.random() < 0.4) for i in range(total)]
    cuts = [first_chat] if first_chat < total else []
    shards = write_shards(tmp_path, [*range(total)], cuts, bits=bits, with_bits_from=1)
    is_chat = np.arange(len(lengths)) >= num_texts
    table = table_of(lengths, is_chat=is_chat.tolist())
    trained = np.where(is_chat, shards.count_trained(table.starts, table.lengths), 0)
    table = Table(**{**vars(table), "trained": trained})
    data = data_of(block_size=SIZE, packing=packing, isolate_documents=isolate, overlong=overlong)
    split = plan_splits(table, data, [SourceShare("a")], NEWLINE, shards)["train"]
    blocks = open_blocks(tmp_path, split.plan, shards, SIZE)
    labels = blocks.batch(range(len(blocks)))["labels"]
    assert int((labels != IGNORE_INDEX).sum()) == split.num_supervised


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_trained_tokens_are_counted_over_shards(
    tmp_path: Path, lengths: list[int], seed: int
) -> None:
    draw = np.random.default_rng(seed)
    total = sum(lengths)
    bits = draw.random(total) < 0.5
    table = table_of(lengths)
    cuts = sorted({*draw.choice(np.cumsum(lengths), 2).tolist()} - {total})
    shards = write_shards(tmp_path, [*range(total)], cuts, bits=bits.tolist())
    some = draw.integers(0, table.lengths + 1)
    counts = shards.count_trained(table.starts, some)
    expected = [bits[s : s + n].sum() for s, n in zip(table.starts, some, strict=True)]
    assert counts.tolist() == expected


def test_tokens_are_read_across_shards(tmp_path: Path) -> None:
    shards: ShardFiles = write_shards(tmp_path, [*range(30)], [7, 8, 20])
    assert shards.num_tokens == 30
    for begin in range(31):
        for end in range(begin, 31):
            assert shards[begin:end].tolist() == [*range(begin, end)]
            assert shards[begin:end].dtype == np.uint16
