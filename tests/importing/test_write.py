"""What is written is read back as what it was."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from clusterlm.importing.draft import Draft, run_name
from clusterlm.importing.write import yaml_of
from clusterlm.spec.document import read_document

TEXTS = some.text(some.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
SCALARS = TEXTS | some.integers(-(10**15), 10**15) | some.booleans()
SCALARS |= some.floats(1e-12, 1e12, allow_nan=False).map(lambda x: float(f"{x:.6g}"))


@given(some.dictionaries(some.sampled_from("abcdef"), SCALARS | some.lists(SCALARS), min_size=1))
def test_values_are_read_back(values: dict[str, Any]) -> None:
    draft = Draft(values={"train": values})
    text = yaml_of(draft, "clusterlm import x")
    assert read_document(text).values == {"train": values}


@pytest.mark.parametrize(
    "text", ["no", "true", "2e5", "1-00:00:00", "a: b", "a #b", "- a", "*x", "~", "null", " x", "'"]
)
def test_a_text_stays_a_text(text: str) -> None:
    written = yaml_of(Draft(values={"name": text}), "x")
    assert read_document(written).values == {"name": text}


def test_learning_rates_are_written_as_people_write_them() -> None:
    values = {"a": 2e-4, "b": 0.05, "c": 1.5e-5, "d": 3.0, "e": 1e9}
    text = yaml_of(Draft(values={"train": values}), "x")
    assert "train: {a: 2.0e-4, b: 0.05, c: 1.5e-5, d: 3, e: 1.0e9}" in text


def test_no_comment_breaks_its_line() -> None:
    draft = Draft()
    draft.put("train.seed", 1, "x\ny: 2 " * 40)
    draft.drop("a\nb: 1", "c\nd: 2")
    assert read_document(yaml_of(draft, "x")).values == {"train": {"seed": 1}}


def test_a_name_is_one_of_a_run() -> None:
    assert run_name("Run PT (2)") == "run-pt-2"
    assert run_name("...") == "imported"
    assert len(run_name("x" * 100)) == 64
