"""A character to be played: a persona, and its dialogs.

    {"name": "Ada", "context": "You are a mathematician.", "greeting": "Good day.",
     "example_dialogue": [{"role": "user", "content": "..."}, {"role": "char", "content": "..."}],
     "dialogues": [{"chat": [{"role": "user", ...}, {"role": "char", ...}]}]}

Name, context and an example become the system turn, in no words but the record's own: nobody knows
its language. The greeting is the first answer, unless the dialog opens with one. Of several
greetings or examples one is taken by the hash of the dialog, so the same record gives the same
conversation in every run, and the dialogs of a character differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import xxhash

from clusterlm.data.kinds.conversation import OPENINGS, BadRecord, Message, Row, kind_of
from clusterlm.data.kinds.filters import MISSING, field_getter
from clusterlm.data.kinds.tool_calls import parsed
from clusterlm.data.kinds.turns import ROLE_NAMES, messages_of, rows_of
from clusterlm.spec.sources import ChatSource

DIALOGS = ("dialogues", "dialogs", "messages", "conversations", "conversation", "chat")
_NAMES: dict[str, tuple[str, ...]] = {
    "name": ("name", "char_name"),
    "context": ("context", "description", "persona"),
    "greeting": ("greeting", "greetings"),
    "example": ("example_dialogue", "example_dialog", "example", "examples"),
}
_ROLES = {**ROLE_NAMES, "char": "assistant", "character": "assistant", "operator": "user"}


def dialogs_of(source: ChatSource) -> Callable[[Row], list[list[Message]]]:
    """What turns a record into its dialogs, each with the persona in front.

    The function raises BadRecord when the record holds no persona or no dialog.
    """
    own: dict[str, str] = {str(part): name for part, name in source.mapping.items()}
    names = {part: (own[part],) if part in own else known for part, known in _NAMES.items()}
    getters = {part: [field_getter(name) for name in found] for part, found in names.items()}
    fields = (source.field,) if source.field else DIALOGS
    reasoning = source.mapping.get("reasoning")
    holders = [(name, field_getter(name)) for name in fields]

    def read(row: Row) -> list[list[Message]]:
        found = {part: _first(row, gets) for part, gets in getters.items()}
        persona = _Persona(found, reasoning)
        for field, get in holders:
            value = get(row)
            if value is not MISSING and value is not None:
                dialogs = _dialogs(parsed(value, field), field)
                return [persona.play(*dialog) for dialog in dialogs]
        raise BadRecord(f"there is no dialog; accepted: one of the fields {', '.join(fields)}")

    return read


def _first(row: Row, getters: list[Callable[[Row], Any]]) -> Any:
    values = (get(row) for get in getters)
    return next((v for v in values if v is not MISSING and v is not None), None)


def _dialogs(value: Any, field: str) -> list[tuple[list[Any], str]]:
    """Each dialog's turns, and what they are called in a message."""
    if isinstance(value, list) and value:
        if all(isinstance(item, list) for item in value):
            return [
                (rows_of(item, f"{field}[{n}]"), f"{field}[{n}]") for n, item in enumerate(value)
            ]
        keys = [_turns_key(item) for item in value]
        if all(keys):
            places = [f"{field}[{n}].{key}" for n, key in enumerate(keys)]
            inner = [item[key] for item, key in zip(value, keys, strict=True)]
            return [(rows_of(v, place), place) for v, place in zip(inner, places, strict=True)]
    return [(rows_of(value, field), field)]


def _turns_key(item: Any) -> str | None:
    """Where an item of a list holds a dialog, if it is one and no turn."""
    if not isinstance(item, dict):
        return None
    keys = ("chat", "messages", "conversations", "conversation")
    return next((key for key in keys if isinstance(item.get(key), list | dict)), None)


class _Persona:
    """Who is played."""

    def __init__(self, found: dict[str, Any], reasoning: str | None) -> None:
        self._reasoning = reasoning
        self._name = _text(found["name"], "name")
        self._context = _text(found["context"], "context")
        if not self._name and not self._context:
            raise BadRecord("there is neither a name nor a context of the character")
        self._greetings = _texts(found["greeting"], "greeting")
        self._examples = _examples(found["example"])
        # a turn may be called by the name of who speaks
        self._roles = {self._name.lower(): "assistant", **_ROLES}

    def play(self, rows: list[Any], field: str) -> list[Message]:
        """One dialog, with the persona in front."""
        turns, _ = messages_of(rows, field, names=self._roles, reasoning=self._reasoning)
        # a system turn of the dialog's own says who is played
        if not turns or turns[0]["role"] in OPENINGS:
            return turns
        said = "\0".join([self._name, self._context, *(turn["content"] for turn in turns)])
        hashed = xxhash.xxh3_64_intdigest(said.encode("utf-8", "surrogatepass"))
        parts = [self._name, self._context]
        if self._examples:
            example = self._examples[(hashed >> 32) % len(self._examples)]
            parts.append(self._lines(example))
        system = "\n\n".join(part for part in parts if part)
        opening: list[Message] = [{"role": "system", "content": system}]
        if self._greetings and turns[0]["role"] != "assistant":
            greeting = self._greetings[(hashed & 0xFFFFFFFF) % len(self._greetings)]
            opening.append({"role": "assistant", "content": greeting})
        return opening + turns

    def _lines(self, example: str | list[Any]) -> str:
        if isinstance(example, str):
            return example
        turns, _ = messages_of(example, "example", names=self._roles)
        names = {"assistant": self._name or "assistant"}
        return "\n".join(f"{names.get(t['role'], t['role'])}: {t['content']}" for t in turns)


def _text(value: Any, part: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRecord(f"the {part} is {kind_of(value)}; accepted: a text")
    return value.strip()


def _texts(value: Any, part: str) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for item in values if (text := _text(item, part))]


def _examples(value: Any) -> list[str | list[Any]]:
    """Each a text or a list of turns."""
    if value is None or value == "":
        return []
    if isinstance(value, list):
        if value and all(isinstance(item, list | str) for item in value):
            return [item for item in value if item]
        return [value] if value else []
    return [value] if isinstance(value, str) else [rows_of(value, "example")]
