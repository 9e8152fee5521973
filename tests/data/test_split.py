from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.data.collect import Table
from clusterlm.data.split import split_documents
from clusterlm.errors import DataError


def _table(keys: list[int], *, length: int = 10, is_chat: bool = False) -> Table:
    count = len(keys)
    lengths = np.full(count, length, dtype=np.int64)
    return Table(
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        supervised=np.zeros(count, dtype=np.int64),
        keys=np.array(keys, dtype=np.uint64),
        repeats=np.ones(count, dtype=np.int64),
        is_chat=np.full(count, is_chat),
        is_held_back=np.zeros(count, dtype=np.bool_),
    )


KEYS = st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=50)


@given(KEYS.filter(lambda keys: len(set(keys)) > 1), st.floats(0.0001, 0.9999))
def test_neither_side_is_ever_empty_and_copies_stay_together(
    keys: list[int], fraction: float
) -> None:
    train, validation = split_documents(_table(keys), fraction)
    assert len(train)
    assert len(validation)
    assert sorted([*train.starts, *validation.starts]) == [10 * i for i in range(len(keys))]
    assert not set(train.keys.tolist()) & set(validation.keys.tolist())


def test_a_document_stays_on_its_side_when_others_are_added() -> None:
    keys = [i * 0x9E3779B97F4A7C15 % 2**64 for i in range(1000)]
    _, few = split_documents(_table(keys[:500]), 0.1)
    _, many = split_documents(_table(keys), 0.1)
    assert set(few.keys.tolist()) <= set(many.keys.tolist())
    assert len(many) == pytest.approx(100, abs=30)


@given(st.integers(2, 10_000), st.floats(0.0001, 0.9999))
def test_of_a_single_text_the_end_is_held_back(length: int, fraction: float) -> None:
    train, validation = split_documents(_table([7], length=length), fraction)
    assert train.lengths[0] > 0
    assert validation.lengths[0] > 0
    assert train.lengths[0] == validation.starts[0]
    assert validation.starts[0] + validation.lengths[0] == length


def test_one_conversation_cannot_be_parted() -> None:
    with pytest.raises(DataError, match="one conversation cannot be held back"):
        split_documents(_table([7], is_chat=True), 0.1)


def test_copies_of_one_document_cannot_be_parted() -> None:
    with pytest.raises(DataError, match="one document, 3 times"):
        split_documents(_table([7, 7, 7]), 0.1)


def test_without_a_fraction_only_what_came_as_validation_is_held_back() -> None:
    table = _table([1, 2, 3])
    train, validation = split_documents(table, 0.0)
    assert (len(train), len(validation)) == (3, 0)
