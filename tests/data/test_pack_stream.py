from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.data import pack_stream
from clusterlm.data.pack_stream import (
    DocumentStarts,
    concat_blocks,
    find_paragraphs,
    start_blocks,
)
from clusterlm.data.table import Table
from clusterlm.data.tokens.token_bytes import NewlineTokens
from tests.data.tables import NEWLINE, Tokens, blocks_of, table_of

LENGTHS = st.lists(st.integers(1, 40), max_size=60)
BLOCK_SIZES = st.integers(1, 24)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True, scope="module")
def small_parts() -> None:
    """Several windows even of what a test can hold."""
    patch = pytest.MonkeyPatch()
    patch.setattr(pack_stream, "SCAN_TOKENS", 16)
    patch.setattr(pack_stream, "CHAIN_TOKENS", 50)
    yield
    patch.undo()


def _in_some_order(lengths: list[int], seed: int) -> tuple[Table, np.ndarray]:
    """Documents, and an order in which some are seen again and some never."""
    table = table_of(lengths)
    order = np.random.default_rng(seed).integers(0, max(1, len(lengths)), len(lengths))
    return table, order


def _stream(table: Table, order: np.ndarray) -> list[int]:
    pairs = zip(table.starts[order].tolist(), table.lengths[order].tolist(), strict=True)
    return [start + i for start, length in pairs for i in range(length)]


def _by_the_rule(
    table: Table, order: np.ndarray, legal: list[list[int]], block_size: int
) -> tuple[list[list[int]], int, int]:
    """Blocks, tokens between them, tokens of the tail, token by token.

    Args:
        legal: of each document of the table, where a block may begin.
    """
    stream, may_begin = _stream(table, order), []
    for document in order.tolist():
        allowed = set(legal[document])
        may_begin += [i in allowed for i in range(int(table.lengths[document]))]
    blocks, between, skipped, place = [], 0, 0, 0
    while place < len(stream):
        if may_begin[place] and place + block_size <= len(stream):
            blocks.append(stream[place : place + block_size])
            between += skipped
            skipped, place = 0, place + block_size
        else:
            skipped, place = skipped + 1, place + 1
    return blocks, between, skipped


@given(LENGTHS, BLOCK_SIZES, SEEDS, st.booleans())
def test_concat_is_the_concatenation_of_the_documents_cut_in_blocks(
    lengths: list[int], block_size: int, seed: int, keep_tail: bool
) -> None:
    table, order = _in_some_order(lengths, seed)
    plan = concat_blocks(table.starts[order], table.lengths[order], block_size, keep_tail=keep_tail)
    stream = _stream(table, order)
    kept = len(stream) if keep_tail else len(stream) // block_size * block_size
    assert blocks_of(plan) == [stream[i : i + block_size] for i in range(0, kept, block_size)]
    assert plan.lost.get("tail", 0) == len(stream) - kept


@given(LENGTHS, BLOCK_SIZES, SEEDS)
def test_document_start_follows_the_rule(lengths: list[int], block_size: int, seed: int) -> None:
    table, order = _in_some_order(lengths, seed)
    legal = [[*range(0, length, block_size)] for length in lengths]
    blocks, between, tail = _by_the_rule(table, order, legal, block_size)
    plan = start_blocks(
        table.starts[order], table.lengths[order], DocumentStarts(block_size), block_size
    )
    assert blocks_of(plan) == blocks
    assert (plan.lost.get("between", 0), plan.lost.get("tail", 0)) == (between, tail)


@given(LENGTHS, BLOCK_SIZES, SEEDS)
def test_paragraph_start_follows_the_rule(lengths: list[int], block_size: int, seed: int) -> None:
    table, order = _in_some_order(lengths, seed)
    draw = np.random.default_rng(seed)
    tokens = np.where(draw.random(sum(lengths)) < 0.4, 0, 50) + draw.integers(0, 10, sum(lengths))
    legal = []
    for start, length in zip(table.starts.tolist(), lengths, strict=True):
        ids = tokens[start : start + length].tolist()
        # 0, 1: a newline; 2, 3, 4: text and a newline; else: text
        begins = [i for i in range(1, length) if ids[i - 1] < 5 and ids[i] >= 2]
        legal.append([0, *begins])
    blocks, between, tail = _by_the_rule(table, order, legal, block_size)
    # some lie elsewhere, or are not to be looked at
    shown = np.zeros(len(lengths), dtype=np.bool_)
    shown[order] = True
    mixed = draw.permutation(np.flatnonzero(shown))
    paragraphs = find_paragraphs(
        table.starts[mixed], table.lengths[mixed], NEWLINE, Tokens(tokens.astype(np.uint16))
    )
    plan = start_blocks(table.starts[order], table.lengths[order], paragraphs, block_size)
    assert blocks_of(plan) == blocks
    assert (plan.lost.get("between", 0), plan.lost.get("tail", 0)) == (between, tail)


def test_a_paragraph_as_drawn() -> None:
    #       A    .   .  n  p   .   .   .  n  p   A
    ids = [50, 50, 50, 3, 50, 50, 50, 50, 0, 50, 50, 50, 50, 50, 3, 50, 50, 50, 50]
    table = table_of([10, 9])
    paragraphs = find_paragraphs(table.starts, table.lengths, NEWLINE, Tokens(np.array(ids)))
    assert paragraphs.addresses[:-1].tolist() == [4, 9, 15]
    plan = start_blocks(table.starts, table.lengths, paragraphs, 6)
    assert blocks_of(plan) == [[0, 1, 2, 3, 4, 5], [9, 10, 11, 12, 13, 14]]
    assert plan.lost == {"between": 3, "tail": 4}


def test_empty_lines_begin_nothing() -> None:
    newline = NewlineTokens(np.array([True, False]), np.array([True, False]))
    table = table_of([6])
    tokens = Tokens(np.array([1, 0, 0, 0, 1, 1]))
    found = find_paragraphs(table.starts, table.lengths, newline, tokens)
    assert found.addresses[:-1].tolist() == [4]


def test_a_long_document_without_paragraphs_gives_one_block() -> None:
    table = table_of([30, 8])
    paragraphs = find_paragraphs(
        table.starts, table.lengths, NEWLINE, Tokens(np.full(38, 50, dtype=np.uint16))
    )
    plan = start_blocks(table.starts, table.lengths, paragraphs, 8)
    assert blocks_of(plan) == [[*range(8)], [*range(30, 38)]]
    assert plan.lost == {"between": 22}
