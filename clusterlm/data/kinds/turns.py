"""Turns as people write them -> messages of known roles.

    {"role": "user", "content": "Hi"}                       messages
    {"role": "user", "content": [{"type": "text", ...}]}    the same in parts
    {"from": "human", "value": "Hi"}                        sharegpt
    {"role": ["user", "bot"], "content": ["Hi", "Hello"]}   dialog: columns in place of rows

Which keys are used is told by the first turn, once for a conversation. A turn of two texts, which
is nearly every one, takes a short way. What turns must be to each other: see `conversation.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from clusterlm.data.kinds.conversation import (
    OPENINGS,
    RESULTS,
    ROLES,
    BadRecord,
    Dropped,
    Message,
    kind_of,
    names_of,
    with_thoughts,
)
from clusterlm.data.kinds.tool_calls import calls_of

ROLE_NAMES: dict[str, str] = {
    **{role: role for role in ROLES},
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "bot", "chatgpt", "bing", "bard", "model"), "assistant"),
    "observation": "function_response",
    "function": "tool",
}
"""What data sets call the roles."""

_KEYS = {"messages": ("role", "content"), "sharegpt": ("from", "value")}
_ACCEPTED = (
    "a list of turns such as {role, content} or {from, value}, an object of such lists, "
    "or the same as JSON"
)
_TURN = "an object such as {role, content} or {from, value}"
_IN_PLACE_OF_CONTENT = ("tool_calls", "reasoning_content")
_CONTENT = "a text, or a list of {type: text, text: ...}"


def rows_of(value: Any, field: str) -> list[Any]:
    """The turns of a conversation; columns are made rows.

    Raises:
        BadRecord: it is neither.
    """
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise BadRecord(f"{field} is {kind_of(value)}; accepted: {_ACCEPTED}")
    columns = {key: column for key, column in value.items() if isinstance(column, list)}
    # as impruver's documentation has it
    if "roles" in columns and "role" not in columns:
        columns["role"] = columns.pop("roles")
    lengths = {key: len(column) for key, column in columns.items()}
    if not columns or len(set(lengths.values())) > 1:
        found = ", ".join(f"{n} of {key[:40]!r}" for key, n in list(lengths.items())[:8])
        raise BadRecord(
            f"{field} is {kind_of(value)}: {found or 'no lists'}; accepted: {_ACCEPTED}"
        )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def messages_of(
    rows: list[Any],
    field: str,
    *,
    layout: str = "auto",
    names: Mapping[str, str] = ROLE_NAMES,
    reasoning: str | None = None,
) -> tuple[list[Message], bool]:
    """The messages, and whether they were written with `from` and `value`.

    Args:
        rows: the turns.
        field: what they are called in a message to people.
        layout: "messages" or "sharegpt"; else told by the first turn.
        names: role by what it may be called, in lower case.
        reasoning: key of an answer's thoughts, which go into its content.

    Raises:
        BadRecord: something is no turn.
        Dropped: a role that is not known, or what is no text.
    """
    keys = _KEYS.get(layout) or _keys_of(rows[0] if rows else None)
    reader = _Reader(field, *keys, names, reasoning)
    return [reader.message(row, number) for number, row in enumerate(rows)], keys[0] == "from"


def without_opening(messages: list[Message], notes: list[str]) -> list[Message]:
    """Without what stands before the first question: a ShareGPT log may begin in the middle."""
    start = 1 if messages and messages[0]["role"] in OPENINGS else 0
    end = start
    while end < len(messages) and messages[end]["role"] != "user":
        end += 1
    # without any question it is no conversation, and will be told so
    if end in (start, len(messages)):
        return messages
    notes.append("opening_cut")
    return messages[:start] + messages[end:]


def add_system(messages: list[Message], system: Any) -> None:
    """Put a system turn in front, unless there is one or it would be empty."""
    is_open = bool(messages) and messages[0]["role"] in OPENINGS
    if isinstance(system, str) and system.strip() and not is_open:
        messages.insert(0, {"role": "system", "content": system})


def add_reasoning(messages: list[Message], reasoning: Any, where: str) -> None:
    """Put thoughts that stand beside the turns into the last answer.

    Raises:
        BadRecord: the thoughts are no text.
    """
    for number in range(len(messages) - 1, -1, -1):
        message = messages[number]
        if message["role"] == "assistant":
            content = thought_out(reasoning, message["content"], where)
            messages[number] = {**message, "content": content}
            return


def thought_out(reasoning: Any, answer: str, where: str) -> str:
    """An answer with its thoughts in front, where there are any and it has none yet.

    Raises:
        BadRecord: the thoughts are no text.
    """
    if reasoning is None or reasoning == "":
        return answer
    if not isinstance(reasoning, str):
        raise BadRecord(f"{where} is {kind_of(reasoning)}; accepted: a text")
    if not reasoning.strip() or answer.lstrip().startswith("<think>"):
        return answer
    return with_thoughts(reasoning, answer)


def _keys_of(first: Any) -> tuple[str, str]:
    if not isinstance(first, dict):
        return _KEYS["messages"]
    role = "from" if first.get("role") is None and "from" in first else "role"
    content = "value" if first.get("content") is None and "value" in first else "content"
    return role, content


class _Reader:
    """Reads the turns of one conversation."""

    def __init__(
        self,
        field: str,
        role_key: str,
        content_key: str,
        names: Mapping[str, str],
        reasoning: str | None,
    ) -> None:
        self._field = field
        self._role_key = role_key
        self._content_key = content_key
        self._names = names
        self._reasoning = reasoning

    def message(self, row: Any, number: int) -> Message:
        """One turn as a message."""
        if not isinstance(row, dict):
            where = f"{self._field}[{number}]"
            raise BadRecord(f"{where} is {kind_of(row)}; accepted: {_TURN}")
        role, content = row.get(self._role_key), row.get(self._content_key)
        if len(row) == 2 and type(role) is str and type(content) is str and role in self._names:
            return {"role": self._names[role], "content": content}
        where = f"{self._field}[{number}]"
        role = self._role(row, where, number)
        further = _further(row, role, where)
        if self._content_key not in row and further.keys().isdisjoint(_IN_PLACE_OF_CONTENT):
            there = f"there are: {names_of(row)}"
            raise BadRecord(
                f"{where}.{self._content_key} is missing; {there}; accepted: {_CONTENT}"
            )
        text = _text_of(content, role, f"{where}.{self._content_key}", number)
        if self._reasoning is not None and role == "assistant":
            text = thought_out(row.get(self._reasoning), text, f"{where}.{self._reasoning}")
            if self._reasoning in further:
                del further[self._reasoning]
        return {"role": role, "content": text, **further}

    def _role(self, row: dict[str, Any], where: str, number: int) -> str:
        if self._role_key not in row:
            there = f"there are: {names_of(row)}"
            raise BadRecord(f"{where}.{self._role_key} is missing; {there}; accepted: {_TURN}")
        found = row[self._role_key]
        if not isinstance(found, str):
            raise BadRecord(
                f"{where}.{self._role_key} is {kind_of(found)}; accepted: a role's name"
            )
        role = self._names.get(found) or self._names.get(found.strip().lower())
        if role is None:
            known = ", ".join(ROLES)
            detail = f"turn {number + 1} is of {kind_of(found)}; roles: {known}"
            raise Dropped("unknown_role", detail)
        return role


def _further(row: dict[str, Any], role: str, where: str) -> Message:
    """What a message may hold besides role and content."""
    further: Message = {}
    if role == "assistant":
        calls = calls_of(row.get("tool_calls"), f"{where}.tool_calls")
        # of OpenAI's API before there were several at once
        if calls is None and isinstance(row.get("function_call"), dict):
            calls = calls_of([row["function_call"]], f"{where}.function_call")
        if calls is not None:
            further["tool_calls"] = calls
    for key in ("reasoning_content", "name", "tool_call_id"):
        if (value := row.get(key)) is None:
            continue
        if not isinstance(value, str):
            raise BadRecord(f"{where}.{key} is {kind_of(value)}; accepted: a text")
        further[key] = value
    if (weight := row.get("weight")) is not None:
        if type(weight) not in (int, float, bool) or weight not in (0, 1):
            raise BadRecord(f"{where}.weight is {kind_of(weight)}; accepted: 0 or 1")
        further["weight"] = int(weight)
    return further


def _text_of(content: Any, role: str, where: str, number: int) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list):
        if role in RESULTS and not all(_is_text_part(part) for part in content):
            return _as_json(content, where)
        return "".join(_part(part, f"{where}[{i}]", number) for i, part in enumerate(content))
    if isinstance(content, dict) and (role in RESULTS or role == "function_call"):
        return _as_json(content, where)
    raise BadRecord(f"{where} is {kind_of(content)}; accepted: {_CONTENT}")


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text"


def _part(part: Any, where: str, number: int) -> str:
    kind = part.get("type", "text") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind != "text":
        raise Dropped("not_text", f"turn {number + 1} holds a part of type {kind_of(kind)}")
    text = part.get("text") if isinstance(part, dict) else part
    if not isinstance(text, str):
        raise BadRecord(f"{where} is {kind_of(part)}; accepted: {{type: text, text: ...}}")
    return text


def _as_json(value: Any, where: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRecord(f"{where} cannot be written as JSON ({error})") from error
