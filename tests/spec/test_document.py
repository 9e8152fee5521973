from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.spec.document import NotYaml, read_document, read_value


def test_lines_are_those_of_the_keys_and_items() -> None:
    document = read_document(
        "name: x\n\ndata:\n  sources:\n    - kind: text\n      path: a\n    - b\n"
    )
    assert document.lines[("name",)] == 1
    assert document.lines[("data", "sources")] == 4
    assert document.lines[("data", "sources", 0, "path")] == 6
    assert document.lines[("data", "sources", 1)] == 7


def test_all_duplicate_keys_are_named() -> None:
    document = read_document("a: 1\nb: {c: 1, c: 2}\na: 3\na: 4\n")
    assert [(p.where, p.line) for p in document.problems] == [("b.c", 2), ("a", 3), ("a", 4)]
    assert "first in line 1" in document.problems[1].message


@pytest.mark.parametrize(
    "text",
    ["12:30:00", "3:50", "4-23:59:59", "2026-01-01", "0755", "0x1F", "no", "yes", "on", "1.2.3"],
)
def test_text_that_yaml_1_1_would_change_is_kept(text: str) -> None:
    assert read_document(f"a: {text}").values == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [("2e-4", 2e-4), ("1e9", 1e9), ("2.0e-4", 2e-4), ("1_000", 1000), ("-3", -3), (".5", 0.5)]
    + [("5.", 5.0), ("true", True), ("FALSE", False), ("~", None), ("", None), ("null", None)],
)
def test_numbers_with_and_without_a_dot_are_numbers(text: str, value: object) -> None:
    found = read_document(f"a: {text}").values["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", [".nan", ".inf", "1e999", "9" * 30, "1" * 5000])
def test_what_is_no_finite_number_stays_text(text: str) -> None:
    assert read_document(f"a: {text}").values == {"a": text}


@pytest.mark.parametrize(
    "text", ["NO", "on", "1.10", "0755", "true", "~", "12:30:00", "1e3", "0.50"]
)
def test_values_under_env_are_what_was_typed(text: str) -> None:
    assert read_document(f"env:\n  A: {text}\n").values == {"env": {"A": text}}
    assert read_value(text, ("env", "A")) == text


def test_keys_are_always_text() -> None:
    assert read_document("on: 1\n1: 2\n~: 3\n").values == {"on": 1, "1": 2, "~": 3}


def test_aliases_and_merge_keys_are_written_out() -> None:
    text = "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: *a\nd: {<<: [{x: 8}, *a]}\n"
    values = read_document(text).values
    assert values["b"] == {"x": 1, "y": 3}
    assert values["c"] == {"x": 1, "y": 2}
    assert values["d"] == {"x": 8, "y": 2}
    assert values["c"] is not values["a"]


def _bomb(levels: int) -> str:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(rows)


def _chain(links: int) -> str:
    return "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, links))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("- a\n", "top level is no mapping"),
        ("just words\n", "top level is no mapping"),
        ("a: 1\n\tb: 2\n", "a tab"),
        ("a:\n\t- b\n", "a tab"),
        ("a: 1\n---\nb: 2\n", "second document"),
        ("a: b: c\n", "in quotes"),
        ("a: {stdlib}/x\n", "in quotes"),
        ("a: *x\n", "undefined alias"),
        ("a: [1, 2\n", "flow sequence"),
        ("a: \x00\n", "U+0000"),
        ("a: \x1b[31m\n", "U+001B"),
        ("a: &a [*a]\n", "aliases"),
        (_bomb(9), "aliases"),
        (
            "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 5000)),
            "aliases",
        ),
        ("a: " + "[" * 100_000, "levels deep"),
        ("- " * 100_000, "levels deep"),
    ],
)
def test_text_that_cannot_be_read_is_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(NotYaml, match=says.replace("+", r"\+")) as caught:
        read_document(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "value", ["!!python/object/apply:os.system [x]", "!!binary aGk=", "!own x", "!!int twelve"]
)
def test_tags_are_refused(value: str) -> None:
    document = read_document(f"a: {value}")
    assert document.values == {"a": None}
    assert [p.line for p in document.problems] == [1]


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        said = str(sorted(read_document(text).lines.values()))
    except NotYaml as error:
        said = str(error)
    assert said.isprintable()
