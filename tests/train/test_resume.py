"""Where the data goes on after a resume with steps of another size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.train.blocks import BlockOrder
from clusterlm.train.resume import Batch, changes, go_on

SIZES = st.integers(1, 6)


def trained(order: BlockOrder, batch: Batch, first: int, last: int, num_blocks: int) -> list[int]:
    """Blocks of the steps `first` to `last`, found the way transformers finds its place."""
    size = batch.blocks_per_step
    steps_per_epoch = -(-num_blocks // size)
    blocks: list[int] = []
    for step in range(first - 1, last):
        order.epoch, place = divmod(step, steps_per_epoch)
        blocks += order.permutation()[place * size : (place + 1) * size].tolist()
    return blocks


@given(num_blocks=st.integers(5, 40), before=SIZES, after=SIZES, again=SIZES, step=SIZES)
def test_no_block_comes_twice_or_never(
    num_blocks: int, before: int, after: int, again: int, step: int
) -> None:
    stream: list[int] = []
    for epoch in range(20):
        order = BlockOrder(num_blocks, seed=3)
        order.epoch = epoch
        stream += order.permutation().tolist()

    old = Batch(before, 1, 1)
    order = BlockOrder(num_blocks, seed=3)
    blocks = trained(order, old, 1, step, num_blocks)
    for ranks in (after, again):
        new = go_on(Batch(ranks, 1, 1), old, step=step, num_blocks=num_blocks)
        order.moved = new.moved
        blocks += trained(order, new, step + 1, step + 3, num_blocks)
        step, old = step + 3, new
    assert blocks == stream[: len(blocks)]


def test_the_same_batch_on_other_ranks_is_at_the_same_place() -> None:
    now = go_on(Batch(1, 2, 6), Batch(3, 2, 2), step=7, num_blocks=50)
    assert now == Batch(1, 2, 6)
    assert list(changes(now, Batch(3, 2, 2))) == [
        "the checkpoint was made by 3 ranks, now there are 1",
        "a step still takes 12 blocks: each rank makes 6 passes of it",
    ]


def test_steps_of_another_size_are_said_loudly() -> None:
    lines = list(changes(Batch(3, 1, 1), Batch(4, 1, 1)))
    assert lines[1].startswith("WARNING: a step now takes 3 blocks, before it took 4: 3 ranks x")
    assert list(changes(Batch(4, 1, 1), Batch(4, 1, 1, moved=9))) == []
    assert list(changes(Batch(4, 1, 1), None)) == []


def test_it_is_read_from_the_checkpoint(tmp_path: Path) -> None:
    batch = Batch(4, 2, 1, moved=-3)
    (tmp_path / "batch.json").write_text(json.dumps(batch.to_json()))
    assert Batch.read(tmp_path) == batch
    (tmp_path / "batch.json").write_text('{"ranks": 4}')
    assert Batch.read(tmp_path) is None
    assert go_on(Batch(1, 1, 1), None, step=9, num_blocks=5) == Batch(1, 1, 1)


@pytest.mark.parametrize("moved", [0, 4, -4, 13])
def test_every_epoch_has_every_block_once_but_where_it_was_moved(moved: int) -> None:
    order = BlockOrder(10, seed=1)
    order.moved = moved
    order.epoch = 5
    assert len(order.permutation()) == 10
    two = order.permutation().tolist()
    order.epoch = 6
    two += order.permutation().tolist()
    rest = 10 - moved % 10
    assert sorted(two[rest : rest + 10]) == list(range(10))
