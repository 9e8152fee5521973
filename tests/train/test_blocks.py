from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from clusterlm.data.blocks import Blocks
from clusterlm.data.pack import join_plans, with_isolation
from clusterlm.data.pack_fit import fit_documents
from clusterlm.data.pack_stream import concat_blocks
from clusterlm.data.store.storage import READ_ENV
from clusterlm.train.blocks import (
    BlockDataset,
    BlockOrder,
    ReadAhead,
    collate_blocks,
    count_tokens,
    widen_ids,
)
from tests.data.tables import open_blocks, table_of, write_shards


@pytest.fixture
def blocks(tmp_path: Path) -> Blocks:
    table = table_of([7, 30, 3, 9, 14, 2, 5] * 10)
    shards = write_shards(tmp_path, [*range(700)], [350], bits=[True] * 700, with_bits_from=1)
    texts, others = table.where(np.arange(70) < 35), table.where(np.arange(70) >= 35)
    plan = join_plans(
        [
            with_isolation(concat_blocks(texts.starts, texts.lengths, 16), False),
            fit_documents(others.starts, others.lengths, 16),
        ]
    )
    return open_blocks(tmp_path, plan, shards, 16)


@given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_every_block_comes_once_an_epoch(num_blocks: int, seed: int, epoch: int) -> None:
    order = BlockOrder(num_blocks, seed)
    order.epoch = epoch
    assert sorted(order) == list(range(num_blocks))


def test_order_follows_from_seed_and_epoch_alone() -> None:
    def take(seed: int, epoch: int) -> list[int]:
        order = BlockOrder(100, seed)
        order.epoch = epoch
        return list(order)

    torch.manual_seed(1)
    first = take(7, 0)
    torch.manual_seed(2)
    assert take(7, 0) == first
    assert take(7, 1) != first
    assert take(8, 0) != first


@pytest.mark.parametrize("way", ["mmap", "pread"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_of_the_loader_holds_the_blocks_of_its_indices(
    blocks: Blocks, monkeypatch: pytest.MonkeyPatch, way: str, workers: int
) -> None:
    monkeypatch.setenv(READ_ENV, way)
    dataset = BlockDataset(blocks, seed=0)
    loader = DataLoader(
        dataset,
        batch_size=3,
        sampler=dataset.order,
        collate_fn=collate_blocks,
        num_workers=workers,
    )
    expected = list(dataset.order)
    for step, batch in enumerate(loader):
        assert set(batch) == {"input_ids", "labels", "position_ids"}
        for name, tensor_BT in batch.items():
            assert tensor_BT.dtype == torch.int32
            indices = expected[step * 3 : step * 3 + 3]
            assert tensor_BT.tolist() == [blocks[index][name].tolist() for index in indices]
    assert step == -(-len(blocks) // 3) - 1


@given(
    st.integers(1, 60), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(0, 40)
)
def test_a_run_that_goes_on_in_the_middle_sees_the_blocks_it_would_have_seen(
    num_blocks: int, batch_size: int, ranks: int, epoch: int, done: int
) -> None:
    def batches() -> list[list[int]]:
        order = BlockOrder(num_blocks, seed=5)
        order.epoch = epoch
        indices = list(order)
        step = batch_size * ranks
        return [indices[i : i + step] for i in range(0, num_blocks, step)]

    # another process, which skips what is done
    assert batches()[done:] == batches()[done:]
    assert sorted(i for batch in batches() for i in batch) == list(range(num_blocks))


def test_ids_are_widened_and_weights_are_not(blocks: Blocks) -> None:
    batch = {**collate_blocks(blocks.batch([0])), "loss_weights": torch.ones(1, 16)}
    wide = widen_ids(batch)
    assert {name: tensor.dtype for name, tensor in wide.items()} == {
        "input_ids": torch.int64,
        "labels": torch.int64,
        "position_ids": torch.int64,
        "loss_weights": torch.float32,
    }
    assert all((wide[name] == batch[name]).all() for name in batch)


def test_an_epoch_reaches_the_order_through_the_dataset(blocks: Blocks) -> None:
    dataset = BlockDataset(blocks, seed=3)
    first = list(dataset.order)
    dataset.set_epoch(1)
    assert list(dataset.order) != first


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_what_is_announced_is_this_ranks_next_batch(ranks: int) -> None:
    for rank in range(ranks):
        order = BlockOrder(50, seed=1)
        ahead = ReadAhead(None, order)  # type: ignore[arg-type]
        indices = list(order)
        batches = [indices[i : i + 4] for i in range(0, 48, 4)][rank::ranks]
        announced = [ahead.behind(batch) for batch in batches]
        assert announced[0] == []
        assert announced[1:-1] == batches[2:]


def test_each_batch_is_announced_once_and_before_it_is_read(
    blocks: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(READ_ENV, "pread")
    asked: list[list[int]] = []
    monkeypatch.setattr(Blocks, "will_need", lambda _, indices: asked.append([*indices]))
    dataset = BlockDataset(blocks, seed=2)
    indices = list(dataset.order)
    batches = [indices[i : i + 4] for i in range(0, len(indices), 4)]
    for number, batch in enumerate(batches):
        dataset.__getitems__(batch)
        assert batch in asked
        # how far apart batches are is known from the second one on
        assert number == 0 or asked[-1] == [*batches, []][number + 1]
    assert [some for some in asked if some] == batches


def test_nothing_is_announced_where_the_order_is_another() -> None:
    ahead = ReadAhead(None, BlockOrder(50, seed=1))  # type: ignore[arg-type]
    assert [ahead.behind([i, i + 1]) for i in range(0, 50, 2)] == [[]] * 25


@pytest.mark.parametrize(
    ("step", "tokens"), [(0, 0), (1, 16), (2, 32), (3, 40), (4, 56), (6, 80), (7, 96)]
)
def test_the_short_last_step_of_an_epoch_counts_what_it_has(step: int, tokens: int) -> None:
    assert count_tokens(step, num_blocks=10, blocks_per_step=4, block_size=4) == tokens
