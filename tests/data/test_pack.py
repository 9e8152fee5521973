from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.data.pack import Plan, concat_blocks, join_plans, pack_documents, shuffle_blocks

LENGTHS = st.lists(st.integers(1, 40), max_size=60)
BLOCK_SIZES = st.integers(1, 24)


def _documents(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Starts and lengths of documents in a stream, in an order that is not that of the stream."""
    sizes = np.array(lengths, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    order = np.argsort(sizes % 7, kind="stable")
    return starts[order], sizes[order]


def _blocks(plan: Plan) -> list[list[int]]:
    """The positions in the stream that each block holds."""
    return [
        [
            int(plan.starts[s]) + i
            for s in range(int(plan.offsets[b]), int(plan.offsets[b + 1]))
            for i in range(int(plan.lengths[s]))
        ]
        for b in range(plan.num_blocks)
    ]


@given(LENGTHS, BLOCK_SIZES, st.booleans())
def test_concat_is_the_concatenation_of_the_documents_cut_in_blocks(
    lengths: list[int], block_size: int, keep_tail: bool
) -> None:
    starts, sizes = _documents(lengths)
    plan = concat_blocks(starts, sizes, block_size, keep_tail=keep_tail)
    stream = [int(s) + i for s, n in zip(starts, sizes, strict=True) for i in range(int(n))]
    kept = len(stream) if keep_tail else len(stream) // block_size * block_size
    assert [t for block in _blocks(plan) for t in block] == stream[:kept]
    assert plan.num_dropped == len(stream) - kept
    full = _blocks(plan)[: kept // block_size]
    assert all(len(block) == block_size for block in full)
    assert plan.num_blocks == -(-kept // block_size)


@given(LENGTHS, BLOCK_SIZES, st.integers(1, 5))
def test_packing_loses_and_doubles_no_token(
    lengths: list[int], block_size: int, open_bins: int
) -> None:
    starts, sizes = _documents(lengths)
    plan = pack_documents(starts, sizes, block_size, open_bins=open_bins)
    held = [t for block in _blocks(plan) for t in block]
    assert sorted(held) == list(range(sum(lengths)))
    assert all(0 < len(block) <= block_size for block in _blocks(plan))
    assert plan.num_tokens == sum(lengths)


@given(LENGTHS, BLOCK_SIZES)
def test_a_document_is_cut_only_when_it_is_longer_than_a_block(
    lengths: list[int], block_size: int
) -> None:
    starts, sizes = _documents(lengths)
    plan = pack_documents(starts, sizes, block_size)
    segments = set(zip(plan.starts.tolist(), plan.lengths.tolist(), strict=True))
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        pieces = -(-size // block_size)
        expected = {
            (start + i * block_size, min(block_size, size - i * block_size)) for i in range(pieces)
        }
        assert expected <= segments


def test_first_fit_as_drawn() -> None:
    # aaa bb cccc dddddddd, blocks of 6
    sizes = np.array([3, 2, 4, 8])
    plan = pack_documents(np.cumsum(sizes) - sizes, sizes, 6)
    assert _blocks(plan) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 15, 16], [9, 10, 11, 12, 13, 14]]


def test_short_documents_leave_little_padding() -> None:
    sizes = np.array([1 + (i * 7919) % 200 for i in range(5000)])
    plan = pack_documents(np.cumsum(sizes) - sizes, sizes, 1024)
    assert plan.num_tokens / (plan.num_blocks * 1024) > 0.98


@given(LENGTHS, BLOCK_SIZES, st.integers(0, 2**32 - 1))
def test_shuffling_moves_whole_blocks(lengths: list[int], block_size: int, seed: int) -> None:
    plan = pack_documents(*_documents(lengths), block_size)
    moved = shuffle_blocks(plan, seed)
    assert sorted(_blocks(moved)) == sorted(_blocks(plan))
    assert _blocks(shuffle_blocks(plan, seed)) == _blocks(moved)


@given(LENGTHS, LENGTHS, BLOCK_SIZES)
def test_joined_plans_have_the_blocks_of_both(
    first: list[int], second: list[int], block_size: int
) -> None:
    plans = [
        concat_blocks(*_documents(first), block_size),
        pack_documents(*_documents(second), block_size),
    ]
    joined = join_plans(plans)
    assert _blocks(joined) == _blocks(plans[0]) + _blocks(plans[1])
    assert joined.num_dropped == plans[0].num_dropped
