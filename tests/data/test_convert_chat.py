"""Conversations, in every way that people write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clusterlm.data.kinds.conversation import Conversation
from tests.data.test_convert import bad, converted, dropped, turns

QA = [("user", "Q"), ("assistant", "A")]
MESSAGES = [{"role": role, "content": content} for role, content in QA]
SHAREGPT = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]


def chat(row: dict[str, Any], **keys: Any) -> Conversation:
    found = converted(row, "chat", **keys)
    assert isinstance(found, Conversation)
    return found


@pytest.mark.parametrize(
    "row",
    [
        {"messages": MESSAGES},
        {"messages": json.dumps(MESSAGES)},
        {"conversations": SHAREGPT},
        {"conversation": MESSAGES},
        {"messages": None, "conversations": SHAREGPT},
        # a table that holds both ways, as parquet makes of it
        {"messages": [{**turn, "from": None, "value": None} for turn in MESSAGES]},
        {"messages": [{"role": None, "content": None, **turn} for turn in SHAREGPT]},
        {"messages": {"role": ["user", "bot"], "content": ["Q", "A"]}},
        {"messages": {"roles": ["user", "assistant"], "content": ["Q", "A"]}},
        {"messages": {"from": ["human", "gpt"], "value": ["Q", "A"]}},
        {"messages": [{"role": "user", "value": "Q"}, {"role": "bot", "value": "A"}]},
        {"messages": [{"role": "User", "content": "Q"}, {"role": "ASSISTANT ", "content": "A"}]},
        {"messages": [*MESSAGES[:1], {**MESSAGES[1], "id": 7, "tool_calls": None}]},
    ],
)
def test_a_layout_is_told_by_the_first_turn(row: dict[str, Any]) -> None:
    assert turns(row) == QA


@pytest.mark.parametrize(
    ("layout", "value"),
    [
        ("messages", MESSAGES),
        ("sharegpt", SHAREGPT),
        ("dialog", {"role": ["user", "assistant"], "content": ["Q", "A"]}),
    ],
)
def test_a_layout_can_be_named_with_its_field(layout: str, value: Any) -> None:
    assert turns({"talk": value}, layout=layout, field="talk") == QA
    assert turns({"a": {"talk": value}}, layout=layout, field="a.talk") == QA


@pytest.mark.parametrize(
    ("layout", "value", "says"),
    [
        ("messages", SHAREGPT, "messages[0].role is missing; there are: from, value"),
        ("sharegpt", MESSAGES, "messages[0].from is missing; there are: role, content"),
        ("dialog", MESSAGES, "layout: dialog wants"),
        ("messages", {"role": [], "content": []}, "wants a list of turns"),
    ],
)
def test_a_record_of_another_layout_is_bad(layout: str, value: Any, says: str) -> None:
    assert says in bad({"messages": value}, "chat", layout=layout)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("human", "user"),
        ("user", "user"),
        ("gpt", "assistant"),
        ("bot", "assistant"),
        ("assistant", "assistant"),
        ("chatgpt", "assistant"),
        ("bing", "assistant"),
        ("bard", "assistant"),
        ("function_call", "function_call"),
        ("observation", "function_response"),
        ("function_response", "function_response"),
        ("tool", "tool"),
        ("system", "system"),
    ],
)
def test_names_of_sharegpt_are_roles(name: str, role: str) -> None:
    call = [{"from": "function_call", "value": "{}"}]
    around = {
        "user": ([], [SHAREGPT[1]]),
        "assistant": ([SHAREGPT[0]], []),
        "function_call": ([SHAREGPT[0]], []),
        "system": ([], SHAREGPT),
    }
    before, behind = around.get(role, ([SHAREGPT[0], *call], [SHAREGPT[1]]))
    found = turns({"conversations": [*before, {"from": name, "value": "x"}, *behind]})
    assert found[len(before)] == (role, "x")


def test_what_a_sharegpt_log_begins_with_is_cut_to_the_first_question() -> None:
    log = [{"from": "system", "value": "S"}, SHAREGPT[1], SHAREGPT[1], *SHAREGPT]
    found = chat({"conversations": log})
    assert [message["content"] for message in found.messages] == ["S", "Q", "A"]
    assert found.notes == ("opening_cut",)


def test_a_system_field_beside_sharegpt_turns_is_their_system_turn() -> None:
    assert turns({"conversations": SHAREGPT, "system": "S"}) == [("system", "S"), *QA]
    own = [{"from": "system", "value": "own"}, *SHAREGPT]
    assert turns({"conversations": own, "system": "S"})[0] == ("system", "own")


def test_content_may_come_in_parts_of_text() -> None:
    parts = [{"type": "text", "text": "Q"}, {"type": "text", "text": "?"}, "!"]
    assert turns({"messages": [{"role": "user", "content": parts}, MESSAGES[1]]})[0][1] == "Q?!"
    image = [{"type": "image_url", "image_url": "x"}]
    found = dropped({"messages": [{"role": "user", "content": image}, MESSAGES[1]]}, "chat")
    assert found.reason == "not_text"
    assert "turn 1" in found.detail


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (5, "messages is the number 5; accepted: a list of turns"),
        ("no json", 'messages is the text "no json", which is no JSON'),
        ("5", "messages is the number"),
        ({}, "no lists"),
        ({"role": ["user"], "content": ["Q", "A"]}, "1 of 'role', 2 of 'content'"),
        (["Q", "A"], 'messages[0] is the text "Q"; accepted: an object'),
        ([{"role": 5, "content": "Q"}], "messages[0].role is the number"),
        ([{"role": "user"}], "messages[0].content is missing; there are: role"),
        ([MESSAGES[0], {"role": "bot", "content": 3}], "messages[1].content is the number"),
        ([{"role": "user", "content": [5]}], "messages[0].content[0] is the number"),
        ([{"role": "user", "content": {"a": 1}}], "messages[0].content is an object (a)"),
        ([{**MESSAGES[0], "name": 5}], "messages[0].name is the number 5; accepted: a text"),
        ([{**MESSAGES[0], "weight": 2}], "messages[0].weight is the number 2; accepted: 0 or 1"),
        ([{**MESSAGES[1], "tool_calls": 3}], "messages[0].tool_calls is the number"),
        ([{**MESSAGES[1], "tool_calls": [3]}], "messages[0].tool_calls[0] is the number"),
    ],
)
def test_what_is_no_conversation_says_where_and_what_is_accepted(value: Any, says: str) -> None:
    assert says in bad({"messages": value}, "chat")


def test_a_record_without_turns_says_what_is_there() -> None:
    says = bad({"text": "x"}, "chat")
    assert "the field messages or conversations or conversation, or prompt and completion" in says
    assert "there are: text" in says
    assert "the field talk, or" in bad({"text": "x"}, "chat", field="talk")


def test_a_system_prompt_is_for_conversations_without_one() -> None:
    assert turns({"messages": MESSAGES}, system_prompt="S") == [("system", "S"), *QA]
    for role in ("system", "developer"):
        own = [{"role": role, "content": "own"}, *MESSAGES]
        assert turns({"messages": own}, system_prompt="S") == [(role, "own"), *QA]
    empty = chat({"messages": [{"role": "system", "content": ""}, *MESSAGES]}, system_prompt="S")
    assert empty.messages[0]["content"] == "S"
    assert empty.notes == ("empty_system",)


def test_a_system_prompt_makes_no_conversation_of_a_broken_one() -> None:
    assert (
        dropped({"messages": MESSAGES[1:]}, "chat", system_prompt="S").reason == "not_alternating"
    )


def test_what_a_message_may_hold_besides_is_kept() -> None:
    answer = {**MESSAGES[1], "reasoning_content": "hm", "name": "ada", "weight": 0, "other": 1}
    found = chat({"messages": [MESSAGES[0], answer]}).messages[1]
    assert found == {
        "role": "assistant",
        "content": "A",
        "reasoning_content": "hm",
        "name": "ada",
        "weight": 0,
    }


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [MESSAGES[0], {**MESSAGES[1], "why": "hm"}]},
        {"messages": MESSAGES, "why": "hm"},
    ],
)
def test_thoughts_go_into_the_answer_where_a_mapping_names_them(row: dict[str, Any]) -> None:
    found = turns(row, mapping={"reasoning": "why"})
    assert found[-1] == ("assistant", "<think>\nhm\n</think>\n\nA")
    assert turns({"messages": MESSAGES}, mapping={"reasoning": "why"}) == QA
    assert "is the number 5" in bad({**row, "why": 5}, "chat", mapping={"reasoning": "why"})


def test_thoughts_are_in_the_answer_only_once() -> None:
    answer = {**MESSAGES[1], "reasoning_content": "hm"}
    mapping = {"reasoning": "reasoning_content"}
    found = chat({"messages": [MESSAGES[0], answer]}, mapping=mapping).messages[1]
    assert found == {"role": "assistant", "content": "<think>\nhm\n</think>\n\nA"}


CALLED = {"type": "function", "function": {"name": "f", "arguments": {"a": [1, 2.0]}}}


@pytest.mark.parametrize(
    "extra",
    [
        {"tool_calls": [CALLED]},
        {"tool_calls": CALLED},
        {"tool_calls": json.dumps([CALLED])},
        {"tool_calls": [{"name": "f", "arguments": {"a": [1, 2.0]}}]},
        {"tool_calls": [{"function": {"name": "f", "arguments": '{"a": [1, 2.0]}'}}]},
        {"function_call": {"name": "f", "arguments": '{"a": [1, 2.0]}'}},
    ],
)
def test_calls_become_those_of_openai_with_their_arguments_as_objects(extra: Any) -> None:
    call = {"role": "assistant", "content": None, **extra}
    result = {"role": "tool", "content": {"sum": 3}, "tool_call_id": "1", "name": "f"}
    found = chat({"messages": [MESSAGES[0], call, result, MESSAGES[1]]}).messages
    assert found[1] == {"role": "assistant", "content": "", "tool_calls": [CALLED]}
    assert found[2] == {
        "role": "tool",
        "content": '{"sum": 3}',
        "tool_call_id": "1",
        "name": "f",
    }


def test_a_call_keeps_its_id_and_broken_arguments() -> None:
    call = {"id": "c1", "name": "f", "arguments": "{broken"}
    answer = {"role": "assistant", "tool_calls": [call]}
    assert chat({"messages": [MESSAGES[0], answer]}).messages[1]["tool_calls"] == [
        {"type": "function", "id": "c1", "function": {"name": "f", "arguments": "{broken"}}
    ]


TOOL = {"name": "f", "description": "d", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    "tools",
    [
        [TOOL],
        TOOL,
        json.dumps([TOOL]),
        [{"type": "function", "function": TOOL}],
    ],
)
def test_tools_become_those_of_openai(tools: Any) -> None:
    wanted = [{"type": "function", "function": TOOL}]
    assert chat({"messages": MESSAGES, "tools": tools}).tools == wanted
    assert chat({"messages": MESSAGES, "functions": tools}, tools="functions").tools == wanted


@pytest.mark.parametrize("tools", [None, [], "", "[]"])
def test_no_tools_are_none(tools: Any) -> None:
    assert chat({"messages": MESSAGES, "tools": tools}).tools is None


@pytest.mark.parametrize("tools", [5, "x", [5], '["f"]'])
def test_what_are_no_tools_are_bad(tools: Any) -> None:
    assert "tools is" in bad({"messages": MESSAGES, "tools": tools}, "chat")


# characters

PERSONA = {"name": "Ада", "context": "Математик.", "greeting": "Здравствуйте."}
DIALOG = [{"role": "user", "content": "Q"}, {"role": "char", "content": "A"}]


def test_a_character_is_a_system_turn_and_greets_first() -> None:
    assert turns({**PERSONA, "dialogues": [{"chat": DIALOG}]}, layout="character") == [
        ("system", "Ада\n\nМатематик."),
        ("assistant", "Здравствуйте."),
        *QA,
    ]


@pytest.mark.parametrize(
    "dialog",
    [
        {"messages": DIALOG},
        {"conversations": SHAREGPT},
        {"dialogues": [DIALOG]},
        {"dialogs": [{"messages": DIALOG}]},
        {"chat": json.dumps(DIALOG)},
        {"messages": {"role": ["operator", "Ада"], "content": ["Q", "A"]}},
    ],
)
def test_dialogs_of_a_character_stand_in_several_places(dialog: dict[str, Any]) -> None:
    assert turns({**PERSONA, **dialog}, layout="character")[2:] == QA


def test_a_dialog_that_opens_with_the_character_needs_no_greeting() -> None:
    row = {**PERSONA, "messages": [{"role": "char", "content": "Hi"}, *DIALOG]}
    assert turns(row, layout="character")[1:] == [("assistant", "Hi"), *QA]


def test_an_example_is_part_of_the_persona_in_the_records_own_words() -> None:
    row = {**PERSONA, "messages": DIALOG, "example_dialogue": DIALOG}
    assert turns(row, layout="character")[0][1] == "Ада\n\nМатематик.\n\nuser: Q\nАда: A"
    row["example_dialogue"] = "as a text"
    assert turns(row, layout="character")[0][1].endswith("\n\nas a text")


def test_one_of_several_greetings_is_taken_and_always_the_same() -> None:
    greetings = ["one", "two", "three"]
    found = []
    for number in range(40):
        dialog = [{"role": "user", "content": f"Q{number}"}, DIALOG[1]]
        row = {**PERSONA, "greeting": greetings, "example": greetings, "messages": dialog}
        first = turns(row, layout="character")
        assert first == turns(row, layout="character")
        found.append((first[1][1], first[0][1].rpartition("\n")[2]))
    assert set(found) == {(greeting, example) for greeting in greetings for example in greetings}


def test_every_dialog_of_a_character_is_a_conversation() -> None:
    rows = [[DIALOG[1]] * 2, DIALOG, DIALOG[:1], DIALOG]
    found = chat({**PERSONA, "dialogues": rows}, layout="character")
    assert [m["content"] for c in found.further for m in c.messages[2:]] == ["Q", "A"]
    assert found.notes == ("dialog_left_out",) * 2
    lonely = {**PERSONA, "dialogues": [[DIALOG[1]] * 2]}
    assert dropped(lonely, "chat", layout="character").reason == "not_alternating"
    assert dropped({**PERSONA, "dialogues": []}, "chat", layout="character").reason == "empty"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": DIALOG}, "neither a name nor a context"),
        (PERSONA, "there is no dialog"),
        ({**PERSONA, "name": 5, "messages": DIALOG}, "the name is the number"),
        ({**PERSONA, "dialogues": 5}, "dialogues is the number"),
        ([], "the record is a list of 0"),
    ],
)
def test_what_is_no_character_says_what_is_missing(row: Any, says: str) -> None:
    assert says in bad(row, "chat", layout="character")


def test_a_mapping_names_the_parts_of_a_character() -> None:
    row = {"who": "N", "about": "C", "hello": "G", "sample": "E", "messages": DIALOG}
    mapping = {"name": "who", "context": "about", "greeting": "hello", "example": "sample"}
    assert turns(row, layout="character", mapping=mapping) == [
        ("system", "N\n\nC\n\nE"),
        ("assistant", "G"),
        *QA,
    ]
