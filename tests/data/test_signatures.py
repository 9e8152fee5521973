from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterlm.data.alike import shingles
from clusterlm.data.alike.signatures import EMPTY, Signatures, signatures_of
from clusterlm.spec.data import NearDuplicates

DOCUMENTS = st.lists(st.lists(st.integers(0, 300), max_size=60), min_size=1, max_size=10)


def sign(documents: list[list[int]], spec: NearDuplicates) -> Signatures:
    lengths = np.array([len(document) for document in documents], dtype=np.int64)
    stream = np.array([token for document in documents for token in document], dtype=np.uint32)
    return signatures_of(stream, np.cumsum(lengths) - lengths, lengths, spec)


@settings(max_examples=40)
@given(DOCUMENTS, st.sampled_from([16, 48, 128]), st.integers(1, 12), st.sampled_from([1, 16, 99]))
def test_a_signature_follows_from_the_document_alone(
    documents: list[list[int]], permutations: int, shingle: int, stretch: int
) -> None:
    spec = NearDuplicates(permutations=permutations, shingle=shingle)
    together = sign(documents, spec)
    assert together.tolist() == [sign([document], spec)[0].tolist() for document in documents]
    with patch.object(shingles, "STRETCH", stretch):
        assert (sign(documents, spec) == together).all()


@settings(max_examples=40)
@given(st.lists(st.integers(0, 50), min_size=8, max_size=300), st.integers(0, 200))
def test_the_least_of_two_signatures_is_that_of_both_documents(tokens: list[int], cut: int) -> None:
    spec = NearDuplicates(shingle=4)
    cut = min(cut, len(tokens) - 4)
    whole, front, back = sign([tokens, tokens[: cut + 3], tokens[cut:]], spec)
    if cut:
        assert (np.minimum(front, back) == whole).all()


@pytest.mark.parametrize("permutations", [16, 128, 240])
@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("size", [4, 20, 100, 1500])
def test_the_estimate_has_no_bias_and_the_spread_of_minhash(
    size: int, similarity: float, permutations: int
) -> None:
    spec = NearDuplicates(permutations=permutations, shingle=1)
    num_common = round(2 * size * similarity / (1 + similarity))
    true = num_common / (2 * size - num_common)
    left, right = [], []
    trials = 200
    for trial in range(trials):
        # tokens of their own for each trial: a shingle is a token here
        tokens = list(range(trial * 2 * size, (trial + 1) * 2 * size))
        left.append(tokens[:size])
        right.append(tokens[size - num_common : 2 * size - num_common])
    estimates = (sign(left, spec) == sign(right, spec)).mean(axis=1)
    spread = (true * (1 - true) / permutations) ** 0.5
    assert abs(estimates.mean() - true) < 4 * spread / trials**0.5 + 1e-9
    assert estimates.std() < 1.25 * spread + 1e-9


def test_documents_without_tokens_are_the_same_and_like_no_other() -> None:
    signatures = sign([[], [1], []], NearDuplicates())
    assert (signatures[[0, 2]] == EMPTY).all()
    assert (signatures[1] != EMPTY).all()


def test_marks_before_and_behind_each_document_do_no_harm() -> None:
    texts = [list(range(first, first + 400)) for first in (0, 1000)]
    marked = sign([[2, *text, 3] for text in texts], NearDuplicates())
    assert (marked == sign(texts, NearDuplicates())).mean() > 0.9
    assert (marked[0] == marked[1]).mean() == 0


def test_starts_and_lengths_may_be_columns_of_the_documents() -> None:
    tokens, starts, lengths = np.arange(9, dtype=np.uint16), [0, 3], [3, 6]
    for kind in (np.uint32, np.int64, np.uint64):
        columns = np.array(starts, dtype=kind), np.array(lengths, dtype=kind)
        found = signatures_of(tokens, *columns, NearDuplicates())
        assert (found == sign([[0, 1, 2], [3, 4, 5, 6, 7, 8]], NearDuplicates())).all()


def test_signatures_are_the_same_for_ever() -> None:
    long, short = sign([list(range(3000)), [1, 2, 3]], NearDuplicates(permutations=16))
    assert long.tolist() == [
        1134277,
        45773,
        207792,
        39657,
        2216259,
        830850,
        1491437,
        107027,
        118940,
        708748,
        1383331,
        3062930,
        924557,
        727848,
        758214,
        1631223,
    ]
    assert short.tolist() == [
        2218315576,
        2234268932,
        430982039,
        1650157451,
        265529437,
        1921786179,
        2162177243,
        2174666145,
        926488400,
        36525177,
        2208483114,
        353979160,
        2158727827,
        2195380692,
        716169114,
        2014131452,
    ]
