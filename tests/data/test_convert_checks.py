"""What a conversation must be, and that nothing else comes out, whatever goes in."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.data.convert import converter_of, domain_of
from clusterlm.data.kinds.conversation import (
    NOTES,
    REASONS,
    ROLES,
    BadRecord,
    Conversation,
    Dropped,
)
from clusterlm.data.kinds.turns import ROLE_NAMES
from clusterlm.spec.sources import Source
from tests.data.test_convert import converted, dropped, source

LETTERS = {
    "s": "system",
    "d": "developer",
    "u": "user",
    "a": "assistant",
    "f": "function_call",
    "r": "function_response",
    "t": "tool",
}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}


def row_of(letters: str) -> dict[str, Any]:
    """`uca`: user, an assistant's call, assistant. Capital letters: turns without words."""
    turns = []
    for letter in letters:
        if letter == "c":
            turns.append(CALL)
        else:
            content = "" if letter.isupper() else "x"
            turns.append({"role": LETTERS[letter.lower()], "content": content})
    return {"messages": turns}


@pytest.mark.parametrize(
    "letters",
    [
        "ua",
        "sua",
        "dua",
        "uaua",
        # a greeting
        "saua",
        # words, then the call; several results; a call at the end
        "ufra",
        "uafra",
        "uctta",
        "ucttctaua",
        "uf",
        "uc",
        "ufrfra",
        "ucra",
        # a function that gives nothing
        "ufRa",
        "ucTa",
    ],
)
def test_a_sound_conversation_is_kept_as_it_is(letters: str) -> None:
    found = converted(row_of(letters), "chat")
    assert len(found.messages) == len(letters)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("letters", "reason", "detail"),
    [
        ("", "empty", "no turns"),
        ("u", "no_answer", "no answer in 1 turns"),
        ("su", "no_answer", "no answer"),
        ("a", "not_alternating", "turn 1 (assistant) is an answer before any question"),
        ("aua", "not_alternating", "turn 1"),
        ("sa", "no_question", "none of them the user's"),
        ("uua", "not_alternating", "turn 2 is user after user"),
        ("uaau", "not_alternating", "turn 3 is assistant after assistant"),
        ("uaca", "not_alternating", "turn 3 is a call after assistant"),
        ("usa", "system_not_first", "turn 2 is a system turn"),
        ("ssua", "system_not_first", "turn 2"),
        ("uasua", "system_not_first", "turn 3"),
        ("uada", "system_not_first", "turn 3 is a developer turn"),
        ("ura", "tool_order", "turn 2 (function_response) is the result of no call"),
        ("uata", "tool_order", "turn 3 (tool) is the result of no call"),
        ("ufa", "tool_order", "turn 3 (assistant) stands where the call's result should"),
        ("ufua", "tool_order", "turn 3 (user)"),
        ("uffra", "tool_order", "turn 3 (function_call)"),
        ("uca", "tool_order", "turn 3"),
        ("ufrua", "not_alternating", "turn 4 is user after function_response"),
        ("Ua", "empty_turn", "turn 1 (user) is empty"),
        ("uA", "empty_turn", "turn 2 (assistant) is empty"),
        ("uF", "empty_turn", "turn 2 (function_call) is empty"),
    ],
)
def test_a_broken_conversation_is_left_out_with_its_reason(
    letters: str, reason: str, detail: str
) -> None:
    found = dropped(row_of(letters), "chat")
    assert found.reason == reason
    assert detail in str(found)


@pytest.mark.parametrize(("letters", "kept"), [("uau", 2), ("uauu", 2), ("ufr", 2), ("sauaus", 4)])
def test_turns_behind_the_last_answer_are_cut_off_and_told(letters: str, kept: int) -> None:
    found = converted(row_of(letters), "chat")
    assert len(found.messages) == kept
    assert found.notes == ("end_cut",)


def test_a_role_that_is_not_known_is_named() -> None:
    turns = [{"role": "user", "content": "x"}, {"role": "narrator", "content": "y"}]
    found = dropped({"messages": turns}, "chat")
    assert found.reason == "unknown_role"
    assert 'turn 2 is of the text "narrator"' in found.detail


def test_an_answer_of_thoughts_alone_is_not_empty() -> None:
    answer = {"role": "assistant", "content": "", "reasoning_content": "hm"}
    row = {"messages": [{"role": "user", "content": "x"}, answer]}
    assert len(converted(row, "chat").messages) == 2


def test_what_is_raised_goes_between_processes() -> None:
    found = pickle.loads(pickle.dumps(dropped(row_of("uua"), "chat")))
    assert (found.reason, found.detail) == ("not_alternating", "turn 2 is user after user")


# whatever goes in

CONTENT = st.one_of(
    st.text(max_size=5),
    st.none(),
    st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=3)})),
)
ROLE = st.sampled_from([*sorted(ROLE_NAMES), "narrator"])
CALLS = st.sampled_from([None, [], CALL["tool_calls"], '[{"name": "f", "arguments": "{}"}]'])
TURN = st.one_of(
    st.fixed_dictionaries({"role": ROLE, "content": CONTENT}),
    st.fixed_dictionaries({"from": ROLE, "value": CONTENT}),
    st.fixed_dictionaries({"role": ROLE, "content": CONTENT, "tool_calls": CALLS}),
)
SENSIBLE = st.sampled_from("uuuuaaaasdfrtc")
NAMES = st.sampled_from(
    [
        *("text", "messages", "conversations", "role", "content", "from", "value", "tools"),
        *("instruction", "input", "output", "prompt", "completion", "system", "why", "type"),
        *("name", "context", "greeting", "example", "dialogues", "chat", "tool_calls", "weight"),
        *("function", "arguments", "reasoning_content", "lang"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
SOURCES = [
    source("text", where_not={"lang": [1, None, "x"]}, min_chars=2, max_chars=9, domain="lang"),
    source("chat", mapping={"reasoning": "why"}, system_prompt="S", domain="meta.lang"),
    source("chat", layout="messages"),
    source("chat", layout="sharegpt"),
    source("chat", layout="dialog", field="messages"),
    source("chat", layout="character"),
    source("instruct", mapping={"system": "system", "reasoning": "why"}, where={"lang": True}),
    source("instruct"),
]
RECORD = JSON | st.dictionaries(NAMES, JSON, max_size=6)


def outcome(one: Source, row: Any) -> str | Conversation | Dropped | BadRecord:
    try:
        return converter_of(one)(row)
    except (Dropped, BadRecord) as error:
        return error


@given(RECORD | st.fixed_dictionaries({"messages": st.lists(TURN | JSON, max_size=6)}))
def test_any_json_gives_a_result_or_one_of_the_two_errors_and_stays_as_it_was(row: Any) -> None:
    for one in SOURCES:
        before = copy.deepcopy(row)
        result = outcome(one, row)
        if isinstance(result, Dropped):
            assert result.reason in REASONS
        if isinstance(result, Dropped | BadRecord):
            assert str(result).isprintable()
        else:
            assert (one.kind == "text") is isinstance(result, str)
        domain_of(row, one)
        # not ==, for a number may be none
        assert repr(row) == repr(before)


@given(
    st.lists(TURN, max_size=8) | st.text(SENSIBLE, max_size=9).map(lambda t: row_of(t)["messages"])
)
def test_an_accepted_conversation_alternates_and_ends_with_an_answer(turns: list[Any]) -> None:
    for layout in ("auto", "messages", "sharegpt"):
        found = outcome(source("chat", layout=layout), {"messages": turns})
        if not isinstance(found, Conversation):
            continue
        assert set(found.notes) <= set(NOTES)
        roles = [message["role"] for message in found.messages]
        assert set(roles) <= set(ROLES)
        assert "user" in roles
        assert roles[-1] in ("assistant", "function_call")
        assert not {"system", "developer"} & set(roles[1:])
        spoken = [role for role in roles if role in ("user", "assistant")]
        if not {"function_call", "tool", "function_response"} & set(roles):
            assert all(a != b for a, b in zip(spoken, spoken[1:], strict=False))
        assert all(a != "user" or b != "user" for a, b in zip(roles, roles[1:], strict=False))
        for before, message in zip([None, *found.messages], found.messages, strict=False):
            assert isinstance(message["content"], str)
            if message["role"] in ("tool", "function_response"):
                assert before is not None
                assert before["role"] not in ("user", "system", "developer")


@given(st.lists(TURN, max_size=8))
def test_what_was_converted_stays_the_same_when_it_is_converted_again(turns: list[Any]) -> None:
    once = outcome(source("chat"), {"messages": turns})
    if isinstance(once, Conversation):
        again = outcome(source("chat"), {"messages": once.messages})
        assert isinstance(again, Conversation)
        assert again.messages == once.messages
        assert again.notes == ()
