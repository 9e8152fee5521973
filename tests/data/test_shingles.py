from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.data.alike import shingles
from clusterlm.data.alike.shingles import hash_windows, shingles_of, windows_of

WIDTHS = st.integers(1, 13)
DOCUMENTS = st.lists(st.lists(st.integers(0, 3), max_size=40), max_size=12)


def lay_out(documents: list[list[int]], gap: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A stream with the documents, `gap` tokens of others between them."""
    between = [3] * gap
    stream = [token for document in documents for token in [*document, *between]]
    lengths = np.array([len(document) for document in documents], dtype=np.int64)
    starts = np.cumsum(lengths + gap) - lengths - gap
    return np.array(stream, dtype=np.uint16), starts, lengths


def windows(document: list[int], width: int) -> list[tuple[int, ...]]:
    """In order; of a shorter document all of it."""
    if len(document) < width:
        return [tuple(document)] if document else []
    return [tuple(document[i : i + width]) for i in range(len(document) - width + 1)]


@given(st.lists(st.integers(0, 2), max_size=60), WIDTHS)
def test_windows_have_the_same_hash_just_when_they_are_the_same(
    tokens: list[int], width: int
) -> None:
    hashes = hash_windows(np.array(tokens, dtype=np.uint32), width).tolist()
    texts = [tuple(tokens[i : i + width]) for i in range(len(tokens) - width + 1)]
    assert len(hashes) == len(texts)
    assert len(set(hashes)) == len(set(texts)) == len(set(zip(hashes, texts, strict=True)))


@given(DOCUMENTS, WIDTHS, st.integers(0, 3), st.sampled_from([1, 16, 65536]), st.integers(1, 5))
def test_no_window_crosses_documents_or_is_lost(
    documents: list[list[int]], width: int, gap: int, stretch: int, max_rows: int
) -> None:
    stream, starts, lengths = lay_out(documents, gap)
    found: list[list[int]] = [[] for _ in documents]
    with patch.object(shingles, "STRETCH", stretch), patch.object(shingles, "MAX_ROWS", max_rows):
        for part in windows_of(stream, starts, lengths, width):
            assert len(set(part.rows.tolist())) == len(part.rows)
            ends = np.cumsum(part.counts).tolist()
            for row, start, end, count in zip(
                part.rows, part.starts, ends, part.counts, strict=True
            ):
                assert start == starts[row] + len(found[row])
                found[row] += part.hashes[end - count : end].tolist()
    for document, hashes in zip(documents, found, strict=True):
        alone, none = np.array(document, dtype=np.uint32), np.zeros(1, dtype=np.int64)
        of_one = windows_of(alone, none, np.array([len(alone)]), width)
        assert hashes == [value for part in of_one for value in part.hashes.tolist()]
        texts = windows(document, width)
        assert len(hashes) == len(texts)
        assert len(set(hashes)) == len(set(texts))


def test_a_short_document_is_no_window_of_a_long_one() -> None:
    # zeros behind it must not make it a longer one
    texts = [np.array(text, dtype=np.uint16) for text in ([7], [0, 7], [7, 0], [0, 0, 7])]
    assert len({shingles_of(text, 3)[0] for text in texts}) == 4


def test_shingles_are_ascending_and_each_is_there_once() -> None:
    shingles_found = shingles_of(np.array([1, 2, 1, 2, 1, 2, 1], dtype=np.uint16), 2)
    assert len(shingles_found) == 2
    assert shingles_found[0] < shingles_found[1]
    assert len(shingles_of(np.empty(0, dtype=np.uint16), 2)) == 0


def test_hashes_are_the_same_for_ever() -> None:
    tokens = np.array([5, 50_000, 0, 65_535, 1], dtype=np.uint16)
    assert hash_windows(tokens, 3).tolist() == hash_windows(tokens.astype(np.uint32), 3).tolist()
    assert hash_windows(tokens, 3).tolist() == [
        4420318530655881695,
        12279462095010142269,
        13584349300876240125,
    ]
