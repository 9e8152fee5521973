from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.data.pack import (
    Plan,
    cut_overlong,
    join_plans,
    offsets_of,
    pad_documents,
    shuffle_blocks,
    with_isolation,
)
from clusterlm.data.pack_fit import fit_documents
from clusterlm.data.pack_stream import concat_blocks
from tests.data.tables import blocks_of, table_of

LENGTHS = st.lists(st.integers(1, 40), max_size=60)
BLOCK_SIZES = st.integers(1, 24)


def _padded(lengths: list[int], block_size: int) -> Plan:
    table = table_of(lengths)
    return pad_documents(table.starts, table.lengths, block_size)


def _fitted(lengths: list[int], block_size: int) -> Plan:
    table = table_of(lengths)
    return fit_documents(table.starts, table.lengths, block_size)


@given(LENGTHS, BLOCK_SIZES)
def test_padded_gives_each_document_blocks_of_its_own(lengths: list[int], block_size: int) -> None:
    plan = _padded(lengths, block_size)
    table = table_of(lengths)
    expected = [
        list(range(start + i, start + min(i + block_size, length)))
        for start, length in zip(table.starts.tolist(), lengths, strict=True)
        for i in range(0, length, block_size)
    ]
    assert blocks_of(plan) == expected
    assert plan.num_unpredicted == plan.num_blocks


@given(LENGTHS, BLOCK_SIZES, st.integers(0, 2**32 - 1))
def test_shuffling_moves_whole_blocks(lengths: list[int], block_size: int, seed: int) -> None:
    plan = _fitted(lengths, block_size)
    moved = shuffle_blocks(plan, seed)
    assert sorted(blocks_of(moved)) == sorted(blocks_of(plan))
    assert blocks_of(shuffle_blocks(plan, seed)) == blocks_of(moved)


@given(LENGTHS, LENGTHS, BLOCK_SIZES, st.integers(0, 2**32 - 1))
def test_joined_plans_have_the_blocks_of_both_as_they_are(
    first: list[int], second: list[int], block_size: int, seed: int
) -> None:
    texts = table_of(first)
    plans = [
        with_isolation(concat_blocks(texts.starts, texts.lengths, block_size), False),
        _fitted(second, block_size),
    ]
    joined = join_plans(plans)
    assert blocks_of(joined) == blocks_of(plans[0]) + blocks_of(plans[1])
    assert joined.lost == plans[0].lost
    assert joined.isolated.tolist() == [False] * plans[0].num_blocks + [True] * plans[1].num_blocks
    assert joined.num_unpredicted == plans[0].num_blocks + len(plans[1].starts)
    moved = shuffle_blocks(joined, seed)
    together = zip(blocks_of(joined), joined.isolated.tolist(), strict=True)
    assert sorted(together) == sorted(zip(blocks_of(moved), moved.isolated.tolist(), strict=True))


def test_pieces_of_an_overlong_document() -> None:
    starts, lengths = cut_overlong(np.array([5, 20]), np.array([10, 3]), 4)
    assert starts.tolist() == [5, 9, 13, 20]
    assert lengths.tolist() == [4, 4, 2, 3]


def test_offsets_as_drawn() -> None:
    assert offsets_of(np.array([2, 1, 3])).tolist() == [0, 2, 3, 6]
