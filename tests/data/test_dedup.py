from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.data.dedup import digest_of, digest_of_pieces, first_occurrences, repeated_rows

# few values, so that documents repeat, and halves of digests without the other half
HALVES = st.sampled_from([0, 1, 2**63, 2**64 - 1])


@given(st.lists(st.tuples(HALVES, HALVES), max_size=40))
def test_each_document_points_to_the_first_with_its_digest(digests: list[tuple[int, int]]) -> None:
    rows = np.array(digests, dtype=np.uint64).reshape(-1, 2)
    assert first_occurrences(rows).tolist() == [digests.index(digest) for digest in digests]


@given(st.lists(st.integers(0, 9), max_size=40))
def test_repeated_rows_come_by_key_and_then_in_order(keys: list[int]) -> None:
    expected = sorted((key, row) for row, key in enumerate(keys) if keys.count(key) > 1)
    assert repeated_rows(np.array(keys, dtype=np.uint64)).tolist() == [row for _, row in expected]


def test_a_million_documents_in_which_every_tenth_is_a_copy() -> None:
    digests = np.arange(2_000_000, dtype=np.uint64).reshape(-1, 2)
    digests[500_000:600_000] = digests[:100_000]
    firsts = first_occurrences(digests)
    assert (firsts[500_000:600_000] == np.arange(100_000)).all()
    assert (firsts != np.arange(1_000_000)).sum() == 100_000


def test_one_piece_has_the_digest_of_the_whole() -> None:
    piece = digest_of(b"text")
    assert digest_of_pieces([piece]) == piece
    assert digest_of_pieces([piece, piece]) != piece
