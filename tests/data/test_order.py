from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.data.order import SALT_VALIDATION, mix, repeats_of, shuffled, uniform_of

KEYS = mix(np.arange(20_000, dtype=np.uint64))
SHUFFLED = [8, 6, 9, 0, 7, 3, 5, 2, 4, 1]


def test_the_mix_is_splitmix64() -> None:
    # the first numbers of the reference generator with seed 1234567
    state = np.array([1234567], dtype=np.uint64)
    step = np.uint64(0x9E3779B97F4A7C15)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    found = []
    for _ in expected:
        found.append(int(mix(state)[0]))
        state = state + step
    assert found == expected


@given(st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_a_shuffle_holds_each_number_once(count: int, seed: int) -> None:
    assert sorted(shuffled(count, seed).tolist()) == list(range(count))


def test_a_shuffle_is_the_same_for_ever() -> None:
    assert shuffled(10, 1).tolist() == SHUFFLED


def test_seeds_give_different_orders() -> None:
    orders = {tuple(shuffled(50, seed).tolist()) for seed in range(100)}
    assert len(orders) == 100
    assert tuple(range(50)) not in orders


@pytest.mark.parametrize("epochs", [0.1, 0.5, 1.0, 2.0, 2.5])
def test_epochs_are_how_often_a_document_is_seen(epochs: float) -> None:
    repeats = repeats_of(KEYS, epochs)
    assert repeats.mean() == pytest.approx(epochs, abs=0.02)
    assert set(repeats.tolist()) <= {int(epochs), int(epochs) + 1}


def test_each_document_may_have_epochs_of_its_own() -> None:
    epochs = np.where(np.arange(len(KEYS)) % 2, 0.3, 1.7)
    expected = np.where(np.arange(len(KEYS)) % 2, repeats_of(KEYS, 0.3), repeats_of(KEYS, 1.7))
    assert (repeats_of(KEYS, epochs) == expected).all()


def test_more_epochs_keep_what_fewer_took() -> None:
    assert (repeats_of(KEYS, 0.3) <= repeats_of(KEYS, 0.6)).all()


def test_what_is_sampled_and_what_is_held_back_are_independent() -> None:
    sampled = repeats_of(KEYS, 0.5).astype(bool)
    share = uniform_of(KEYS, SALT_VALIDATION)
    assert (share[sampled] < 0.2).mean() == pytest.approx(0.2, abs=0.02)
