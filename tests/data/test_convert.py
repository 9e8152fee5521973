"""Records -> texts and pairs; which records are taken."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from clusterlm.data.convert import KINDS, converter_of, domain_of
from clusterlm.data.kinds.conversation import REASONS, BadRecord, Conversation, Dropped
from clusterlm.spec.sources import Source

SOURCES: TypeAdapter[Source] = TypeAdapter(Source)


def source(kind: str, **keys: Any) -> Source:
    return SOURCES.validate_python({"kind": kind, "path": "x", **keys})


def converted(row: Any, kind: str, **keys: Any) -> Any:
    return converter_of(source(kind, **keys))(row)


def turns(row: Any, kind: str = "chat", **keys: Any) -> list[tuple[str, str]]:
    """The messages as pairs of role and content."""
    found = converted(row, kind, **keys)
    assert isinstance(found, Conversation)
    return [(message["role"], message["content"]) for message in found.messages]


def dropped(row: Any, kind: str, **keys: Any) -> Dropped:
    with pytest.raises(Dropped) as caught:
        converted(row, kind, **keys)
    assert caught.value.reason in REASONS
    return caught.value


def bad(row: Any, kind: str, **keys: Any) -> str:
    with pytest.raises(BadRecord) as caught:
        converted(row, kind, **keys)
    return str(caught.value)


def test_every_kind_of_the_spec_has_its_function() -> None:
    kinds = SOURCES.json_schema()["discriminator"]["mapping"]
    assert set(kinds) == set(KINDS)


def test_a_text_is_a_file_or_a_field() -> None:
    assert converted("whole file", "text") == "whole file"
    assert converted({"text": "a"}, "text") == "a"
    assert converted({"body": "b"}, "text", field="body") == "b"
    assert converted({"meta": {"body": "c"}}, "text", field="meta.body") == "c"
    assert converted({"meta.body": "d"}, "text", field="meta.body") == "d"


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_a_text_of_nothing_is_left_out(text: str) -> None:
    assert dropped({"text": text}, "text").reason == "empty"
    assert dropped(text, "text").reason == "empty"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"body": "x", "id": 1}, "the field text is missing; there are: body, id"),
        ({"text": 5}, "the field text is the number 5; accepted: a text"),
        ({"text": None}, "the field text is nothing"),
        ({"text": ["x"]}, "the field text is a list of 1"),
        ({}, "there are: no fields"),
        ([1], "the record is a list of 1; accepted: an object with field text"),
        ({"\x1b[31m": 1}, "there are: \\x1b[31m"),
    ],
)
def test_a_record_without_a_text_says_what_is_there(row: Any, says: str) -> None:
    assert says in bad(row, "text")


def test_where_takes_records_of_these_values_only() -> None:
    keys: dict[str, Any] = {"where": {"lang": ["ru", "en"], "meta.score": 1}}
    row = {"text": "x", "lang": "en", "meta": {"score": 1.0}}
    assert converted(row, "text", **keys) == "x"
    found = dropped({**row, "lang": "de"}, "text", **keys)
    assert (found.reason, found.detail) == ("filtered", 'lang is "de"')
    assert dropped({**row, "meta": {}}, "text", **keys).detail == "meta.score is missing"
    assert dropped({**row, "meta": 3}, "text", **keys).reason == "filtered"


def test_where_not_lets_records_without_the_field_pass() -> None:
    keys: dict[str, Any] = {"where_not": {"label": ["bad_output", None]}}
    assert converted({"text": "x"}, "text", **keys) == "x"
    assert converted({"text": "x", "label": ["bad_output"]}, "text", **keys) == "x"
    assert dropped({"text": "x", "label": "bad_output"}, "text", **keys).reason == "filtered"
    assert dropped({"text": "x", "label": None}, "text", **keys).reason == "filtered"


@pytest.mark.parametrize(
    ("wanted", "found", "is_same"),
    [
        (1, 1.0, True),
        (1.0, 1, True),
        (1, "1", False),
        ("1", 1, False),
        (1, True, False),
        (True, 1, False),
        (True, True, True),
        (False, 0, False),
        (None, None, True),
        (None, "", False),
        ([1, True], True, True),
        ([0, True], False, False),
    ],
)
def test_values_are_compared_with_their_types(wanted: Any, found: Any, is_same: bool) -> None:
    row = {"text": "x", "v": found}
    if is_same:
        assert converted(row, "text", where={"v": wanted}) == "x"
    else:
        assert dropped(row, "text", where={"v": wanted}).reason == "filtered"


def test_a_filter_is_asked_before_the_record_is_read() -> None:
    assert dropped({"lang": "de"}, "chat", where={"lang": "en"}).reason == "filtered"


def test_bounds_of_length_are_inclusive() -> None:
    keys = {"min_chars": 2, "max_chars": 3}
    assert [converted(text, "text", **keys) for text in ("ab", "abc")] == ["ab", "abc"]
    assert dropped("a", "text", **keys).reason == "too_short"
    assert dropped("abcd", "text", **keys).reason == "too_long"


def test_bounds_count_all_turns_and_not_the_system_prompt_that_is_added() -> None:
    row = {"instruction": "12", "output": "345"}
    keys = {"max_chars": 5, "system_prompt": "a long one"}
    assert turns(row, "instruct", **keys)[0] == ("system", "a long one")
    assert dropped({**row, "input": "6"}, "instruct", **keys).reason == "too_long"


@pytest.mark.parametrize(
    ("row", "name", "domain"),
    [
        ({"lang": "ru"}, "lang", "ru"),
        ({"meta": {"site": "a.org"}}, "meta.site", "a.org"),
        ({"lang": 3}, "lang", "3"),
        ({"lang": True}, "lang", "true"),
        ({"lang": None}, "lang", None),
        ({"lang": ""}, "lang", None),
        ({"lang": ["ru"]}, "lang", None),
        ({}, "lang", None),
        ("text of a file", "lang", None),
        ({"lang": "ru"}, None, None),
    ],
)
def test_a_domain_is_what_its_field_says(row: Any, name: str | None, domain: str | None) -> None:
    assert domain_of(row, source("text", domain=name)) == domain


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Q", "output": "A"},
        {"prompt": "Q", "response": "A"},
        {"question": "Q", "answer": "A", "input": None},
        {"prompt": "Q", "completion": "A", "input": ""},
        {"instruction": None, "prompt": "Q", "completion": "A"},
    ],
)
def test_fields_of_a_pair_are_known_by_their_names(row: dict[str, Any]) -> None:
    assert turns(row, "instruct") == [("user", "Q"), ("assistant", "A")]


def test_the_input_goes_below_the_instruction() -> None:
    row = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert turns(row, "instruct")[0] == ("user", "Add.\n1 2")
    assert turns({**row, "instruction": ""}, "instruct")[0] == ("user", "1 2")


def test_a_mapping_names_the_fields() -> None:
    row = {"q": "Q", "a": {"text": "A"}, "sys": "S", "cot": "hm", "input": "I"}
    mapping = {"instruction": "q", "output": "a.text", "system": "sys", "reasoning": "cot"}
    assert turns(row, "instruct", mapping=mapping) == [
        ("system", "S"),
        ("user", "Q\nI"),
        ("assistant", "<think>\nhm\n</think>\n\nA"),
    ]


def test_a_pair_may_lack_its_system_turn_and_its_thoughts() -> None:
    mapping = {"system": "sys", "reasoning": "cot"}
    for row in ({}, {"sys": None, "cot": None}, {"sys": "", "cot": ""}):
        row = {"instruction": "Q", "output": "A", **row}
        assert turns(row, "instruct", mapping=mapping) == [("user", "Q"), ("assistant", "A")]


def test_a_prompt_and_its_completion_may_be_turns() -> None:
    row = {
        "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
        "completion": [{"role": "assistant", "content": "A"}],
    }
    expected = [("system", "S"), ("user", "Q"), ("assistant", "A")]
    assert turns(row, "instruct") == expected
    assert turns(row, "chat") == expected
    assert turns({"prompt": "Q", "completion": "A"}, "chat") == expected[1:]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"output": "A", "x": 1}, "there is no instruction; accepted: the field instruction or"),
        ({"instruction": "Q"}, "there is no output"),
        (
            {"instruction": "Q", "output": 42},
            "the output is the number 42; accepted: a text, or a list",
        ),
        ({"instruction": "Q", "output": "A", "input": 1}, "the input is the number"),
        ({"instruction": [], "output": "A", "input": "x"}, "the instruction is a list"),
        ("Q", 'the record is the text "Q"'),
    ],
)
def test_a_pair_that_is_none_says_what_is_missing(row: Any, says: str) -> None:
    assert says in bad(row, "instruct")


@pytest.mark.parametrize("blank", ["instruction", "output"])
def test_a_pair_with_an_empty_side_is_left_out(blank: str) -> None:
    row = {"instruction": "Q", "output": "A", blank: " "}
    assert dropped(row, "instruct").reason == "empty_turn"
