from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterlm.data.alike.near import (
    FOUND,
    MAX_KEPT,
    SIGMAS,
    Near,
    bands_of,
    jaccard,
    near_duplicates,
    similarities_of,
)
from clusterlm.data.alike.shingles import shingles_of
from clusterlm.data.alike.signatures import Signatures, signatures_of
from clusterlm.data.order import Keys
from clusterlm.spec.data import NearDuplicates

Text = list[int]


def sign(texts: list[Text], spec: NearDuplicates) -> tuple[Signatures, list[Keys]]:
    """Signatures, and the shingles of each text."""
    arrays = [np.array(text, dtype=np.uint32) for text in texts]
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    signatures = signatures_of(np.concatenate(arrays), np.cumsum(lengths) - lengths, lengths, spec)
    return signatures, [shingles_of(array, spec.shingle) for array in arrays]


def find(texts: list[Text], spec: NearDuplicates) -> Near:
    signatures, sets = sign(texts, spec)
    return near_duplicates(signatures, spec, count_shingles=counter(sets))


def counter(sets: list[Keys]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pairs: similarities_of(pairs, sets.__getitem__)


@pytest.mark.parametrize("permutations", [16, 64, 128, 256, 512])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_a_pair_at_the_threshold(threshold: float, permutations: int) -> None:
    spec = NearDuplicates(threshold=threshold, permutations=permutations)
    bands, rows = bands_of(spec)
    assert bands * rows <= permutations
    assert 1 - (1 - threshold**rows) ** bands >= FOUND
    # one more row would find too few
    bands = permutations // (rows + 1)
    assert 1 - (1 - threshold ** (rows + 1)) ** bands < FOUND


def test_what_no_bands_can_find_gets_the_bands_that_find_most() -> None:
    assert bands_of(NearDuplicates(threshold=0.01, permutations=16)) == (16, 1)
    assert bands_of(NearDuplicates()) == (21, 6)


def read_one_by_one(
    signatures: Signatures, spec: NearDuplicates, order: list[int], sets: list[Keys]
) -> list[tuple[int, int]]:
    """What `near_duplicates` says it does, document by document: all (dropped, kept it is near)."""
    bands, rows = bands_of(spec)
    doubt = SIGMAS * (spec.threshold * (1 - spec.threshold) / spec.permutations) ** 0.5
    kept: list[int] = []
    pairs = []
    for row in order:
        near_to = []
        for other in kept:
            same = signatures[row] == signatures[other]
            if not same[: bands * rows].reshape(bands, rows).all(axis=1).any():
                continue
            is_near = same.mean() > spec.threshold
            if abs(same.mean() - spec.threshold) <= doubt:
                is_near = jaccard(sets[row], sets[other]) >= spec.threshold
            if is_near:
                near_to.append(other)
        pairs += [(row, other) for other in near_to]
        if not near_to:
            kept.append(row)
    return pairs


# few words and short shingles: texts are near each other in chains and stars
TEXTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=30)


@settings(max_examples=200)
@given(
    TEXTS,
    st.sampled_from([0.3, 0.5, 0.8, 1.0]),
    st.sampled_from([16, 64]),
    st.randoms(use_true_random=False),
)
def test_the_result_is_that_of_reading_one_document_after_the_other(
    texts: list[Text], threshold: float, permutations: int, chance: random.Random
) -> None:
    spec = NearDuplicates(threshold=threshold, permutations=permutations, shingle=2)
    signatures, sets = sign(texts, spec)
    order = chance.sample(range(len(texts)), chance.randint(1, len(texts)))
    found = near_duplicates(
        signatures, spec, rows=np.array(order, dtype=np.int64), count_shingles=counter(sets)
    )
    expected = read_one_by_one(signatures, spec, order, sets)
    dropped = {row for row, _ in expected}
    assert set(np.flatnonzero(~found.keep).tolist()) == dropped
    assert found.pairs[:, 0].tolist() == sorted(dropped)
    assert {tuple(pair) for pair in found.pairs.tolist()} <= set(expected)


@settings(max_examples=50)
@given(TEXTS)
def test_the_first_of_each_group_of_same_texts_is_kept_and_no_other(texts: list[Text]) -> None:
    found = find(texts, NearDuplicates(threshold=1.0, shingle=1))
    sets = [frozenset(text) for text in texts]
    assert found.keep.tolist() == [sets.index(each) == row for row, each in enumerate(sets)]
    assert all(sets[one] == sets[other] for one, other in found.pairs.tolist())


def test_many_copies_are_each_compared_once() -> None:
    found = find([[5, 6, 7, 8, 9, 10, 11, 12, 13]] * 3000, NearDuplicates())
    assert found.keep.sum() == 1
    assert found.num_compared == 2999
    assert (found.pairs[:, 1] == 0).all()


def test_many_different_texts_in_one_bucket_are_not_all_compared() -> None:
    spec = NearDuplicates()
    signatures = np.arange(1000 * 128, dtype=np.uint32).reshape(1000, 128)
    signatures[:, :6] = 7
    found = near_duplicates(signatures, spec)
    assert found.keep.all()
    assert found.num_compared == sum(999 - kept for kept in range(MAX_KEPT))


def test_rows_that_are_left_out_are_neither_dropped_nor_compared_with() -> None:
    signatures, _ = sign([[1, 2, 3]] * 4, NearDuplicates())
    found = near_duplicates(signatures, NearDuplicates(), rows=np.array([3, 1]))
    assert found.keep.tolist() == [True, False, True, True]
    assert found.pairs.tolist() == [[1, 3]]


def test_no_documents_and_one_document() -> None:
    for count in (0, 1):
        found = near_duplicates(np.zeros((count, 128), dtype=np.uint32), NearDuplicates())
        assert found.keep.tolist() == [True] * count
        assert found.pairs.shape == (0, 2)


# -- recall and precision over texts as they come ------------------------------------------------


def make_writer(seed: int) -> Callable[[int], Text]:
    """Texts of words as frequent as in a language, which also repeat whole phrases."""
    chance = random.Random(seed)
    words = [int(chance.paretovariate(0.9)) % 20_000 for _ in range(200_000)]
    phrases = [[chance.choice(words) for _ in range(chance.randint(3, 30))] for _ in range(500)]

    def write(length: int) -> Text:
        text: Text = []
        while len(text) < length:
            text += chance.choice(phrases) if chance.random() < 0.1 else [chance.choice(words)]
        return text[:length]

    return write


def edit(text: Text, num_edits: int, chance: random.Random) -> Text:
    """Words replaced, put in and left out, and an end that is cut or goes on."""
    text = list(text)
    for _ in range(num_edits):
        place = chance.randrange(len(text))
        text[place : place + chance.randint(0, 2)] = [
            chance.randrange(20_000) for _ in range(chance.randint(0, 2))
        ]
    return text


def test_nearly_all_planted_near_duplicates_are_found_and_nearly_nothing_else() -> None:
    spec = NearDuplicates()
    write, chance = make_writer(1), random.Random(2)
    head = write(60)
    originals = [
        # half of them begin alike
        (head if number % 2 else []) + write(int(20 * 1.6 ** chance.uniform(0, 10)))
        for number in range(1500)
    ]
    # from hardly changed to too much changed
    planted = [
        edit(text, round(len(text) * chance.uniform(0, 0.03)), chance) for text in originals[:1000]
    ]
    texts = originals + planted
    signatures, sets = sign(texts, spec)
    found = near_duplicates(signatures, spec, count_shingles=counter(sets))

    similar = [jaccard(sets[row], sets[1500 + row]) for row in range(1000)]
    near = [1500 + row for row, value in enumerate(similar) if value >= spec.threshold]
    at_threshold = [row for row in near if similar[row - 1500] < 0.85]
    dropped = set(found.pairs[:, 0].tolist())
    precise = [jaccard(sets[a], sets[b]) >= spec.threshold for a, b in found.pairs.tolist()]
    assert len(near) > 400
    assert len(at_threshold) > 60
    assert np.mean([row in dropped for row in near]) >= 0.99
    assert np.mean([row in dropped for row in at_threshold]) >= 0.97
    assert np.mean(precise) >= 0.99
    # shingles are counted for those near the threshold only
    assert found.num_counted < 0.6 * len(planted)


def test_all_pairs_at_the_threshold_are_found() -> None:
    # true similarity of each pair exactly 0.8: sets of 9, 8 in common
    texts = []
    for pair in range(2000):
        text = list(range(20 * pair, 20 * pair + 9))
        texts += [text, [*text[:8], 20 * pair + 9]]
    found = find(texts, NearDuplicates(shingle=1))
    assert (~found.keep[1::2]).mean() >= 0.97
    assert found.keep[::2].all()
