from __future__ import annotations

import math
import pickle
from collections import Counter
from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterlm.data.alike import shingles
from clusterlm.data.alike.contaminated import (
    MAX_HOLDERS,
    SHORTEST,
    Contaminated,
    ValidationIndex,
    contaminated,
    index_validation,
)
from clusterlm.spec.data import Decontaminate

Text = list[int]
Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


def lay_out(texts: list[Text]) -> Columns:
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    stream = np.array([token for text in texts for token in text], dtype=np.uint16)
    return stream, np.cumsum(lengths) - lengths, lengths


def index(validation: list[Text], **spec: float) -> ValidationIndex:
    return index_validation(*lay_out(validation), Decontaminate(**spec))


def check(training: list[Text], validation: list[Text], **spec: float) -> Contaminated:
    return contaminated(*lay_out(training), index(validation, **spec))


def ngrams(text: Text, ngram: int) -> set[tuple[int, ...]]:
    """Of a shorter text all of it, with a mark that makes it no part of others."""
    if len(text) < ngram:
        return {(-1, *text)} if text else set()
    return {tuple(text[i : i + ngram]) for i in range(len(text) - ngram + 1)}


def is_part(text: Text, of: Text) -> bool:
    return any(of[i : i + len(text)] == text for i in range(len(of) - len(text) + 1))


def read_one_by_one(
    training: list[Text], validation: list[Text], ngram: int, share: float
) -> list[list[int]]:
    """What the module says it does, with sets."""
    firsts = [row for row, text in enumerate(validation) if validation.index(text) == row]
    sets = {row: ngrams(validation[row], ngram) for row in firsts}
    holders = Counter(gram for each in sets.values() for gram in each)
    pairs = []
    for row, text in enumerate(training):
        for other, grams in sets.items():
            counted = {gram for gram in grams if holders[gram] <= MAX_HOLDERS} or grams
            num_held = len(counted & ngrams(text, ngram))
            enough = num_held and num_held >= math.ceil(share * len(counted) - 1e-9)
            whole = validation[other]
            short = SHORTEST <= len(whole) < ngram and is_part(whole, text)
            if enough or short:
                pairs.append([row, other])
    return pairs


TEXTS = st.lists(st.lists(st.integers(0, 1), max_size=25), max_size=8)


@settings(max_examples=300)
@given(
    TEXTS,
    TEXTS,
    st.sampled_from([3, 5, 9, 13]),
    st.sampled_from([0.01, 0.28, 0.5, 1.0]),
    st.sampled_from([1, 65536]),
)
def test_the_pairs_are_those_of_sets_of_ngrams(
    training: list[Text], validation: list[Text], ngram: int, share: float, stretch: int
) -> None:
    # some training documents hold validation documents
    training = training + [[1, *text, 0] for text in validation[::2]] + validation[1:2]
    with patch.object(shingles, "STRETCH", stretch):
        found = check(training, validation, ngram=ngram, share=share)
    expected = read_one_by_one(training, validation, ngram, share)
    assert found.pairs.tolist() == expected
    assert set(np.flatnonzero(found.mask).tolist()) == {row for row, _ in expected}


@given(TEXTS, TEXTS, st.integers(0, 8))
def test_how_documents_are_put_in_chunks_does_not_matter(
    training: list[Text], validation: list[Text], cut: int
) -> None:
    training = training + validation
    once = check(training, validation, ngram=5)
    made = index(validation, ngram=5)
    parts = [contaminated(*lay_out(part), made).mask for part in (training[:cut], training[cut:])]
    assert once.mask.tolist() == np.concatenate(parts).tolist()


def numbers(first: int, count: int) -> Text:
    return list(range(first, first + count))


def test_half_of_a_validation_document_in_one_training_document_is_enough() -> None:
    # 100 13-grams; a passage of 62 tokens holds 50 of them
    validation = [numbers(0, 112)]
    training = [[*numbers(500, 40), *numbers(30, 62), 999], numbers(30, 61), numbers(600, 300)]
    assert check(training, validation).pairs.tolist() == [[0, 0]]


def test_a_passage_counts_once_however_often_it_is_repeated() -> None:
    validation = [numbers(0, 112)]
    assert not check([numbers(0, 30) * 20], validation).mask.any()


def test_a_short_validation_document_is_looked_for_as_a_whole() -> None:
    validation = [numbers(0, 10), numbers(50, 12)]
    training = [
        [*numbers(100, 40), *numbers(0, 10), 7],
        numbers(0, 9),
        [9, *numbers(50, 12)],
        [*numbers(50, 11), 9, 9],
    ]
    assert check(training, validation).pairs.tolist() == [[0, 0], [2, 1]]


def test_a_passage_does_not_go_on_in_the_next_document() -> None:
    assert not check([numbers(0, 6), numbers(6, 6)], [numbers(0, 12)]).mask.any()
    assert not check([numbers(0, 10), numbers(10, 10)], [numbers(0, 20)]).mask.any()


def test_a_few_words_are_only_given_away_by_the_same_few_words() -> None:
    training = [[*numbers(100, 40), 1, 2, 3, *numbers(200, 40)], [1, 2, 3], [1, 2]]
    assert check(training, [[1, 2, 3]]).mask.tolist() == [False, True, False]


def test_what_many_validation_documents_begin_with_shows_nothing() -> None:
    system = numbers(0, 200)
    validation = [[*system, *numbers(1000 * row, 30)] for row in range(1, 9)]
    training = [[*system, *numbers(20_000, 30)], [*system, *numbers(3000, 30)]]
    assert check(training, validation).pairs.tolist() == [[1, 2]]


def test_a_validation_document_of_common_passages_only_is_still_looked_for() -> None:
    common = numbers(0, 60)
    validation = [[*common, *numbers(1000 * row, 30)] for row in range(1, 9)] + [common]
    assert check([common], validation).pairs.tolist() == [[0, 8]]


def test_copies_of_a_validation_document_count_as_the_first() -> None:
    assert check([numbers(0, 50)], [numbers(100, 20)] + [numbers(0, 50)] * 9).pairs.tolist() == [
        [0, 1]
    ]


def test_an_index_goes_to_workers() -> None:
    made = pickle.loads(pickle.dumps(index([numbers(0, 50), numbers(70, 9)])))
    found = contaminated(*lay_out([numbers(0, 50), numbers(60, 30)]), made)
    assert found.pairs.tolist() == [[0, 0], [1, 1]]


def test_nothing_to_look_for_or_to_look_in() -> None:
    assert check([numbers(0, 50)], []).mask.tolist() == [False]
    assert check([numbers(0, 50), []], [[]]).mask.tolist() == [False, False]
    assert check([], [numbers(0, 50)]).pairs.shape == (0, 2)


def test_nothing_is_found_in_a_million_tokens_of_others() -> None:
    stream = (np.arange(1_000_000) % 65_521).astype(np.uint16)
    made = index_validation(stream[:60_000], np.array([0]), np.array([60_000]), Decontaminate())
    others = stream[::-1].copy()
    assert not contaminated(others, np.array([0]), np.array([len(others)]), made).mask.any()
