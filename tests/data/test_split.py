from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.data.split import split_documents
from clusterlm.errors import DataError
from tests.data.tables import table_of

KEYS = st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=50)
FRACTIONS = st.floats(0.0001, 0.9999)


def _of(keys: list[int], **columns: object):
    return table_of([10] * len(keys), keys=keys, **columns)  # type: ignore[arg-type]


@given(KEYS.filter(lambda keys: len(set(keys)) > 1), FRACTIONS)
def test_neither_side_is_ever_empty_and_copies_stay_together(
    keys: list[int], fraction: float
) -> None:
    train, validation = split_documents(_of(keys), [fraction])
    assert len(train)
    assert len(validation)
    assert sorted([*train.starts, *validation.starts]) == [10 * i for i in range(len(keys))]
    assert not set(train.keys.tolist()) & set(validation.keys.tolist())


@given(
    st.lists(st.integers(0, 20), min_size=2, max_size=60).filter(lambda k: len(set(k)) > 1),
    st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9]), min_size=3, max_size=3).filter(any),
    st.integers(0, 2**32 - 1),
)
def test_sources_have_fractions_of_their_own_and_copies_stay_together(
    keys: list[int], fractions: list[float], seed: int
) -> None:
    source = np.random.default_rng(seed).integers(0, 3, len(keys)).tolist()
    table = _of([key * 0x9E3779B97F4A7C15 % 2**64 for key in keys], source=source)
    train, validation = split_documents(table, fractions)
    assert sorted([*train.starts, *validation.starts]) == [10 * i for i in range(len(keys))]
    assert not set(train.keys.tolist()) & set(validation.keys.tolist())
    assert len(train)
    if any(fractions[s] for s in source):
        assert len(validation)


def test_each_source_gives_its_share() -> None:
    keys = [i * 0x9E3779B97F4A7C15 % 2**64 for i in range(3000)]
    table = _of(keys, source=[i % 3 for i in range(3000)])
    _, validation = split_documents(table, [0.0, 0.1, 0.5])
    counts = np.bincount(validation.source, minlength=3)
    assert counts[0] == 0
    assert counts[1] == pytest.approx(100, abs=35)
    assert counts[2] == pytest.approx(500, abs=60)


def test_a_document_stays_on_its_side_when_others_are_added() -> None:
    keys = [i * 0x9E3779B97F4A7C15 % 2**64 for i in range(1000)]
    _, few = split_documents(_of(keys[:500]), [0.1])
    _, many = split_documents(_of(keys), [0.1])
    assert set(few.keys.tolist()) <= set(many.keys.tolist())
    assert len(many) == pytest.approx(100, abs=30)


@given(st.integers(2, 10_000), FRACTIONS)
def test_of_a_single_text_the_end_is_held_back(length: int, fraction: float) -> None:
    train, validation = split_documents(table_of([length]), [fraction])
    assert train.lengths[0] > 0
    assert validation.lengths[0] > 0
    assert train.lengths[0] == validation.starts[0]
    assert validation.starts[0] + validation.lengths[0] == length


def test_one_conversation_cannot_be_parted() -> None:
    with pytest.raises(DataError, match="one conversation cannot be held back"):
        split_documents(_of([7], is_chat=[True]), [0.1])


def test_copies_of_one_document_cannot_be_parted() -> None:
    with pytest.raises(DataError, match="one document, 3 times"):
        split_documents(_of([7, 7, 7]), [0.1])


def test_without_a_fraction_only_what_came_as_validation_is_held_back() -> None:
    table = _of([1, 2, 3], is_held_back=[False, True, False], source=[0, 1, 0])
    train, validation = split_documents(table, [0.0, 0.0])
    assert train.keys.tolist() == [1, 3]
    assert validation.keys.tolist() == [2]


@given(KEYS, FRACTIONS)
def test_a_fraction_adds_to_own_sources_and_something_is_trained_on(
    keys: list[int], fraction: float
) -> None:
    back = [i == 0 for i in range(len(keys))]
    table = _of(keys, is_held_back=back, source=[int(not b) for b in back])
    train, validation = split_documents(table, [0.0, fraction])
    assert validation.is_held_back.sum() == 1
    assert not train.is_held_back.any()
    assert len(train)
