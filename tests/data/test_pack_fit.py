from __future__ import annotations

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.data.pack_fit import fit_documents
from tests.data.tables import blocks_of, table_of

LENGTHS = st.lists(st.integers(1, 40), max_size=80)
BLOCK_SIZES = st.integers(1, 24)


def _best_fit_decreasing(lengths: list[int], block_size: int) -> list[list[int]]:
    """The lengths in each block, by the book: one document at a time, all blocks looked through."""
    pieces = [
        min(block_size, length - i) for length in lengths for i in range(0, length, block_size)
    ]
    blocks: list[list[int]] = []
    for piece in sorted(pieces, reverse=True):
        fits = [block for block in blocks if sum(block) + piece <= block_size]
        if fits:
            max(fits, key=sum).append(piece)
        else:
            blocks.append([piece])
    return blocks


@given(LENGTHS, BLOCK_SIZES)
def test_no_token_is_lost_or_doubled(lengths: list[int], block_size: int) -> None:
    table = table_of(lengths)
    plan = fit_documents(table.starts, table.lengths, block_size)
    blocks = blocks_of(plan)
    assert sorted(t for block in blocks for t in block) == list(range(sum(lengths)))
    assert all(0 < len(block) <= block_size for block in blocks)
    assert not plan.lost


@given(LENGTHS, BLOCK_SIZES)
def test_a_document_is_cut_only_when_it_is_longer_than_a_block(
    lengths: list[int], block_size: int
) -> None:
    table = table_of(lengths)
    plan = fit_documents(table.starts, table.lengths, block_size)
    expected = {
        (start + i, min(block_size, length - i))
        for start, length in zip(table.starts.tolist(), lengths, strict=True)
        for i in range(0, length, block_size)
    }
    assert set(zip(plan.starts.tolist(), plan.lengths.tolist(), strict=True)) == expected


@given(LENGTHS, BLOCK_SIZES)
def test_it_is_best_fit_decreasing(lengths: list[int], block_size: int) -> None:
    table = table_of(lengths)
    plan = fit_documents(table.starts, table.lengths, block_size)
    # of two blocks with the same room, either may be taken: how full they get is the same
    expected = sorted(map(sum, _best_fit_decreasing(lengths, block_size)))
    assert sorted(map(len, blocks_of(plan))) == expected


def test_best_fit_as_drawn() -> None:
    # aaa bb cccc dddddddd, blocks of 6
    table = table_of([3, 2, 4, 8])
    plan = fit_documents(table.starts, table.lengths, 6)
    a, b, c, d = [0, 1, 2], [3, 4], [5, 6, 7, 8], [*range(9, 17)]
    assert sorted(blocks_of(plan)) == sorted([a + d[6:], b + c, d[:6]])


def test_short_documents_leave_hardly_any_padding() -> None:
    sizes = [1 + (i * 7919) % 200 for i in range(5000)]
    table = table_of(sizes)
    plan = fit_documents(table.starts, table.lengths, 1024)
    assert plan.num_blocks <= -(-sum(sizes) // 1024) + 1


def test_a_million_documents_take_about_a_second() -> None:
    lengths = np.random.default_rng(0).integers(1, 400, 1_000_000)
    began = time.process_time()
    plan = fit_documents(np.cumsum(lengths) - lengths, lengths, 4096)
    # a dozen times what it takes: other work is on the machine
    assert time.process_time() - began < 6
    assert plan.num_tokens == lengths.sum()
