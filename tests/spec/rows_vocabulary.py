"""Rows of test_rules: the rows of a model against the entries of a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from tests.spec.conftest import Row

OF_12 = {"model": {"name": "rows12", "vocab": "keep"}, "data.tokenizer": {"name": "entries10"}}


def vocabulary_files(folder: Path) -> None:
    """A model of 12 rows and a tokenizer of 10 entries."""
    (folder / "rows12").mkdir()
    config = {"text_config": {"vocab_size": 12}, "max_position_embeddings": 128}
    (folder / "rows12" / "config.json").write_text(json.dumps(config))
    (folder / "entries10").mkdir()
    vocab = {chr(97 + i): i for i in range(9)}
    parts = {"model": {"vocab": vocab}, "added_tokens": [{"id": 9, "content": "<s>"}]}
    (folder / "entries10" / "tokenizer.json").write_text(json.dumps(parts))


def _vocab(**section: object) -> dict[str, object]:
    return OF_12 | {"model": {"name": "rows12", "vocab": section}}


VOCABULARY: list[Row] = [
    (
        "vocabulary_has_a_use",
        {"model": {"name": "a/b", "vocab": "resize"}},
        {"model.vocab": "resize"},
        "model.vocab",
        "is for an existing model",
    ),
    (
        "vocabulary_has_a_use",
        {"model": {"name": "a/b"}, "train.command": ["true"]},
        {"model": {"name": "a/b", "vocab": "resize"}, "train.command": ["true"]},
        "model.vocab",
        "an own script would not see its work",
    ),
    (
        "expected_sizes_go_with_the_mode",
        {"model": {"name": "a/b", "vocab": {"mode": "resize", "expect": [32000, 49953]}}},
        {"model": {"name": "a/b", "vocab": {"expect": [32000, 49953]}}},
        "model.vocab.expect",
        "write mode: resize",
    ),
    (
        "expected_sizes_go_with_the_mode",
        {"model": {"name": "a/b", "vocab": {"mode": "strict", "expect": [32000, 32000]}}},
        {"model": {"name": "a/b", "vocab": {"mode": "strict", "expect": [32001, 32000]}}},
        "model.vocab.expect",
        "strict allows no difference",
    ),
    (
        "expected_sizes_go_with_the_mode",
        {},
        {"model": {"name": "a/b", "vocab": {"expect": [0, 5]}}},
        "model.vocab.expect",
        "are no sizes",
    ),
    ("vocabulary_fits", OF_12, _vocab(mode="strict"), "model.vocab", "mode: keep (2 rows have"),
    (
        "vocabulary_fits",
        _vocab(expect=[12, 10]),
        _vocab(expect=[12, 12]),
        "model.vocab",
        "expect says 12 rows and 12 entries",
    ),
    # added words count, those that are there already do not
    (
        "vocabulary_fits",
        OF_12 | {"data.tokenizer": {"name": "entries10", "extend": {"tokens": ["a", "x", "y"]}}},
        OF_12 | {"data.tokenizer": {"name": "entries10", "extend": {"tokens": ["x", "y", "z"]}}},
        "model.vocab",
        "mode: resize (1 new rows",
    ),
    # learned entries are counted by the data phase; the rows are known here
    (
        "vocabulary_fits",
        _vocab(mode="resize", expect=[12, 90])
        | {"data.tokenizer": {"name": "entries10", "extend": {"learn": 80}}},
        _vocab(mode="resize", expect=[13, 90])
        | {"data.tokenizer": {"name": "entries10", "extend": {"learn": 80}}},
        "model.vocab.expect",
        "has 12 rows, and 13 are expected",
    ),
]
