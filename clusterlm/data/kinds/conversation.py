"""What a conversation must be to be trained on, and how one that is not is called.

    start      -> system, developer, user
    system     -> user, assistant                             (a greeting)
    user       -> assistant, a call
    assistant  -> user, function_call                         (words, then the call)
    a call     -> function_response, tool                     its results
    a result   -> assistant, a call, a further result

A call is a turn of role `function_call`, or an assistant's with `tool_calls`. Chat templates take
this for granted: what does not hold it is refused by some, and rendered in a way that no model
meets later by others. So such a conversation is left out, with a reason to be counted by. What
stands behind the last answer trains nothing: it is cut off, and the rest is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clusterlm.spec.wording import printable, shown

Message = dict[str, Any]
"""role, content (text), and where there are any: tool_calls, tool_call_id, reasoning_content, name,
weight (0 or 1: whether this turn is trained)."""
Row = str | dict[str, Any]
"""A record: the text of a whole file, or fields."""

ROLES = (
    *("system", "developer", "user", "assistant"),
    *("function_call", "function_response", "tool"),
)
OPENINGS = frozenset({"system", "developer"})
RESULTS = frozenset({"function_response", "tool"})
_ANSWERS = frozenset({"assistant", "function_call"})

REASONS: dict[str, str] = {
    "filtered": "left out by where or where_not",
    "too_short": "shorter than min_chars",
    "too_long": "longer than max_chars",
    "empty": "empty",
    "left_out": "left out by the converter",
    "unknown_role": "with a role that is not known",
    "system_not_first": "with a system turn that is not the first",
    "not_alternating": "whose turns do not alternate",
    "tool_order": "with a call without its result, or a result without its call",
    "empty_turn": "with an empty turn",
    "no_question": "without a question",
    "no_answer": "without an answer",
    "not_text": "with images or sound in a turn",
}
"""Why a record is left out, in short words behind a number."""

NOTES: dict[str, str] = {
    "end_cut": "conversations without an answer at their end: cut behind the last one",
    "opening_cut": "conversations that began with an answer: cut to the first question",
    "empty_system": "empty system turns, taken as none",
    "dialog_left_out": "dialogs of a character that could not be used",
}
"""What is changed, and told."""

_CALL = "a call"
_MAY_FOLLOW: dict[str, frozenset[str]] = {
    "start": frozenset({"system", "developer", "user"}),
    "system": frozenset({"user", "assistant"}),
    "developer": frozenset({"user", "assistant"}),
    "user": frozenset({"assistant", "function_call", _CALL}),
    "assistant": frozenset({"user", "function_call"}),
    "function_call": RESULTS,
    _CALL: RESULTS,
    "function_response": frozenset({"assistant", "function_call", _CALL}) | RESULTS,
    "tool": frozenset({"assistant", "function_call", _CALL}) | RESULTS,
}


class Dropped(ValueError):
    """A record that is left out and counted; it never stops the run by itself.

    Attributes:
        reason: key of REASONS.
        detail: what was found, and in which turn.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class BadRecord(ValueError):
    """A record that does not hold what its source says; `data.on_bad_record` governs it."""


@dataclass(frozen=True)
class Conversation:
    """Turns to be rendered by a chat template.

    Attributes:
        tools: what may be called, as in OpenAI's API; None when there are none.
        notes: keys of NOTES: what was changed.
        further: more conversations of the same record (a character with several dialogs).
    """

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    notes: tuple[str, ...] = ()
    further: tuple[Conversation, ...] = ()


def check_turns(messages: list[Message], notes: list[str]) -> list[Message]:
    """The turns up to the last answer, each in a place where it may stand.

    Args:
        messages: of known roles.
        notes: gets keys of NOTES.

    Raises:
        Dropped: what is left is no conversation.
    """
    messages = _without_loose_ends(messages, notes)
    before, has_question = "start", False
    for number, message in enumerate(messages):
        turn = role = message["role"]
        if role == "user":
            has_question = True
        elif role == "assistant" and "tool_calls" in message:
            turn = _CALL
        if turn not in _MAY_FOLLOW[before]:
            raise _out_of_place(number, before, turn)
        content = message["content"]
        if (not content or content.isspace()) and not _may_be_empty(turn, message):
            raise Dropped("empty_turn", f"turn {number + 1} ({role}) is empty")
        before = turn
    if not has_question:
        raise Dropped("no_question", f"{len(messages)} turns, none of them the user's")
    return messages


def num_chars(messages: list[Message]) -> int:
    """Characters of all turns together."""
    return sum(len(m["content"]) + len(m.get("reasoning_content", "")) for m in messages)


def with_thoughts(reasoning: str, answer: str) -> str:
    """An answer behind the thoughts that led to it, as reasoning models write them."""
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{answer}"


def kind_of(value: object) -> str:
    """What a found value is, in words."""
    if isinstance(value, str):
        return f"the text {shown(value)}"
    if value is None or isinstance(value, bool):
        return shown(value)
    if isinstance(value, int | float):
        # Python writes out no number of thousands of digits
        return f"the number {value}" if abs(value) < 10**15 else "a number"
    if isinstance(value, dict):
        return f"an object ({names_of(value)})"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return f"of the type {printable(type(value).__name__)}"


def names_of(row: Mapping[Any, Any]) -> str:
    """The fields of a record, for a message."""
    names = [printable(str(name)[:40]) for name in list(row)[:8]]
    return ", ".join(names + ["..."] * (len(row) > 8)) or "no fields"


def _without_loose_ends(messages: list[Message], notes: list[str]) -> list[Message]:
    if not messages:
        raise Dropped("empty", "no turns")
    end = len(messages)
    while end and messages[end - 1]["role"] not in _ANSWERS:
        end -= 1
    if end == 0:
        raise Dropped("no_answer", f"no answer in {len(messages)} turns")
    start = 0
    first = messages[0]
    if first["role"] in OPENINGS and not first["content"].strip():
        start = 1
        notes.append("empty_system")
    if end < len(messages):
        notes.append("end_cut")
    return messages[start:end] if start or end < len(messages) else messages


def _may_be_empty(turn: str, message: Message) -> bool:
    # a function may give nothing; a call needs no words, nor does an answer of thoughts alone
    if turn in RESULTS or turn is _CALL:
        return True
    return bool(message.get("reasoning_content", "").strip())


def _out_of_place(number: int, before: str, turn: str) -> Dropped:
    place = f"turn {number + 1}"
    if turn in OPENINGS:
        return Dropped("system_not_first", f"{place} is a {turn} turn; it may only be the first")
    if turn in RESULTS:
        return Dropped("tool_order", f"{place} ({turn}) is the result of no call")
    if before in (_CALL, "function_call"):
        return Dropped("tool_order", f"{place} ({turn}) stands where the call's result should")
    if before == "start":
        return Dropped("not_alternating", f"{place} ({turn}) is an answer before any question")
    return Dropped("not_alternating", f"{place} is {turn} after {before}")
