from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from clusterlm.data.cache import open_cache
from clusterlm.train.blocks import BlockDataset, BlockOrder, collate_blocks, count_tokens


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


def test_a_batch_of_the_loader_holds_the_blocks_of_its_indices(cache: Path) -> None:
    blocks = open_cache(cache).split("train")
    dataset = BlockDataset(blocks, seed=0)
    loader = DataLoader(dataset, batch_size=3, sampler=dataset.order, collate_fn=collate_blocks)
    batch = next(iter(loader))
    indices = list(dataset.order)[:3]
    assert set(batch) == {"input_ids", "labels", "position_ids"}
    for name, tensor_BT in batch.items():
        assert tensor_BT.dtype == torch.int64
        expected = [blocks[index][name].tolist() for index in indices]
        assert tensor_BT.tolist() == expected


def test_an_epoch_reaches_the_order_through_the_dataset() -> None:
    dataset = BlockDataset(range(50), seed=3)  # type: ignore[arg-type]
    first = list(dataset.order)
    dataset.set_epoch(1)
    assert list(dataset.order) != first


@pytest.mark.parametrize(
    ("step", "tokens"), [(0, 0), (1, 16), (2, 32), (3, 40), (4, 56), (6, 80), (7, 96)]
)
def test_the_short_last_step_of_an_epoch_counts_what_it_has(step: int, tokens: int) -> None:
    assert count_tokens(step, num_blocks=10, blocks_per_step=4, block_size=4) == tokens
