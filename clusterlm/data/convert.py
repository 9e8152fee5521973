"""Records -> what is encoded: a text, or a conversation as messages of {role, content}.

A new kind of source is one function here and one line in CONVERTERS. Each raises ValueError with
the reason in words when a record does not hold what its source says; the caller knows the place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clusterlm.spec.data import ChatSource, InstructSource, Source, TextSource

ROLES = ("system", "user", "assistant", "tool")

Message = dict[str, str]
Row = str | dict[str, Any]


def text_of(row: Row, source: TextSource) -> str:
    """The document: a whole file, or the text field of a row."""
    return row if isinstance(row, str) else _string(row, source.field)


def messages_of_chat(row: Row, source: ChatSource) -> list[Message]:
    """The turns of a conversation, checked."""
    turns = _field(row, source.field)
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"field {source.field!r} is no list of turns")
    return [_message(turn, f"{source.field}[{i}]") for i, turn in enumerate(turns)]


def messages_of_instruct(row: Row, source: InstructSource) -> list[Message]:
    """One question and its answer, behind a system turn where the row has one."""
    messages = [
        {"role": "user", "content": _string(row, source.prompt)},
        {"role": "assistant", "content": _string(row, source.response)},
    ]
    # rows without a system turn may stand among others that have one
    if source.system is not None and isinstance(row, dict) and row.get(source.system):
        messages.insert(0, {"role": "system", "content": _string(row, source.system)})
    return messages


def _message(turn: Any, where: str) -> Message:
    if not isinstance(turn, dict):
        raise ValueError(f"{where} is no object with role and content")
    role, content = turn.get("role"), turn.get("content")
    if role not in ROLES:
        raise ValueError(f"{where}.role is {role!r}; known roles: {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise ValueError(f"{where}.content is no string")
    return {"role": role, "content": content}


def _string(row: Row, field: str) -> str:
    value = _field(row, field)
    if not isinstance(value, str):
        raise ValueError(f"field {field!r} is no string but {type(value).__name__}")
    return value


def _field(row: Row, field: str) -> Any:
    if not isinstance(row, dict) or field not in row:
        there = ", ".join(sorted(row)[:8]) if isinstance(row, dict) else "no fields"
        raise ValueError(f"field {field!r} is missing (there: {there or 'no fields'})")
    return row[field]


CONVERTERS: dict[str, Callable[[Row, Any], str | list[Message]]] = {
    "text": text_of,
    "chat": messages_of_chat,
    "instruct": messages_of_instruct,
}


def convert(row: Row, source: Source) -> str | list[Message]:
    """The text or the messages that `row` holds.

    Raises:
        ValueError: it does not hold what its source says.
    """
    return CONVERTERS[source.kind](row, source)
