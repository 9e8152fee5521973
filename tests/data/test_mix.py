from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.data.mix import (
    SourceShare,
    epochs_of_sources,
    repeats_of_documents,
    tokens_of_sources,
)
from tests.data.tables import table_of

TOKENS = st.lists(st.integers(1, 10**12), min_size=1, max_size=8)


def _weighted(*weights: float | None) -> list[SourceShare]:
    return [SourceShare(str(i), weight=weight) for i, weight in enumerate(weights)]


def test_epochs_are_what_is_asked_for() -> None:
    sources = [SourceShare("a", epochs=2.5), SourceShare("b")]
    assert epochs_of_sources([10, 20], sources, None) == [2.5, 1.0]


def test_equal_weights_as_described() -> None:
    assert epochs_of_sources([300, 100], _weighted(1, 1), None) == pytest.approx([2 / 3, 2])


def test_a_source_without_weight_counts_one_as_soon_as_another_has_one() -> None:
    with_one = epochs_of_sources([300, 100], _weighted(3, None), None)
    assert with_one == epochs_of_sources([300, 100], _weighted(3, 1), None) == [1.0, 1.0]


@given(TOKENS, st.data())
def test_weights_share_out_a_pass_as_long_as_all_sources(
    tokens: list[int], data: st.DataObject
) -> None:
    some = st.lists(st.floats(0.01, 100), min_size=len(tokens), max_size=len(tokens))
    weights = data.draw(some)
    epochs = epochs_of_sources(tokens, _weighted(*weights), None)
    given = [e * t for e, t in zip(epochs, tokens, strict=True)]
    assert sum(given) == pytest.approx(sum(tokens))
    for i in range(len(tokens)):
        assert given[i] / sum(tokens) == pytest.approx(weights[i] / sum(weights))


@given(TOKENS, st.floats(1, 100))
def test_a_temperature_evens_out_and_keeps_the_length_of_the_pass(
    tokens: list[int], temperature: float
) -> None:
    epochs = epochs_of_sources(tokens, _weighted(*[None] * len(tokens)), temperature)
    assert sum(e * t for e, t in zip(epochs, tokens, strict=True)) == pytest.approx(sum(tokens))
    # the smaller a source, the more often it is seen
    by_size = [e for _, e in sorted(zip(tokens, epochs, strict=True))]
    assert all(a >= b * 0.999 for a, b in zip(by_size, by_size[1:], strict=False))


def test_temperature_one_keeps_the_sizes() -> None:
    assert epochs_of_sources([7, 70, 700], _weighted(None, None, None), 1.0) == pytest.approx(
        [1.0, 1.0, 1.0]
    )


def test_a_weight_multiplies_the_share_of_a_temperature() -> None:
    epochs = epochs_of_sources([100, 100], _weighted(3, None), 2.0)
    assert epochs == pytest.approx([1.5, 0.5])


def test_a_source_with_nothing_takes_no_share() -> None:
    assert epochs_of_sources([0, 50], _weighted(9, 1), None) == [0.0, 1.0]
    assert epochs_of_sources([0, 0], _weighted(9, 1), None) == [0.0, 0.0]


def test_trained_tokens_count_and_not_all() -> None:
    table = table_of([10, 10, 30], source=[0, 1, 1], is_chat=[False, True, True], trained=[0, 4, 5])
    assert tokens_of_sources(table, 3).tolist() == [10, 9, 0]


def test_each_source_is_repeated_by_its_own_epochs() -> None:
    table = table_of([1] * 30_000, source=[0, 1, 2] * 10_000)
    repeats = repeats_of_documents(table, [0.25, 1.0, 3.5])
    for source, epochs in enumerate([0.25, 1.0, 3.5]):
        here = repeats[table.source == source]
        assert here.mean() == pytest.approx(epochs, abs=0.02)
        assert set(here.tolist()) <= {int(epochs), int(epochs) + 1}


def test_documents_that_are_added_change_nothing_for_those_that_were_there() -> None:
    table = table_of([5] * 400)
    before = repeats_of_documents(table.where(np.arange(400) < 300), [0.5])
    assert (repeats_of_documents(table, [0.5])[:300] == before).all()
    # with weights, more data of others means more of this one, never less
    assert (repeats_of_documents(table, [0.7])[:300] >= before).all()
