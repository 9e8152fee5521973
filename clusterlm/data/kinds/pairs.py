"""A task and its answer in fields of a record: a turn of the user, and one of the assistant.

    {"instruction": "Add.", "input": "1 2", "output": "3"}            one question, one answer
    {"prompt": [{"role": "user", ...}], "completion": [{...}]}        the same as turns

The task is the instruction, and below it the input. Which fields are meant is told by `mapping`, or
else by their names; a system turn and thoughts are never guessed, for many data sets have a field
of that name for something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from clusterlm.data.kinds.conversation import BadRecord, Message, Row, kind_of, names_of
from clusterlm.data.kinds.filters import MISSING, field_getter
from clusterlm.data.kinds.turns import add_reasoning, add_system, messages_of
from clusterlm.spec.sources import InstructSource

_NAMES: dict[str, tuple[str, ...]] = {
    "instruction": ("instruction", "prompt", "question"),
    "input": ("input", "context"),
    "output": ("output", "response", "completion", "answer"),
    "system": (),
    "reasoning": (),
}


def pairs_of(source: InstructSource) -> Callable[[Row], list[Message]]:
    """What turns a record into its messages; it raises BadRecord."""
    own: dict[str, str] = {str(part): name for part, name in source.mapping.items()}
    names = {part: (own[part],) if part in own else known for part, known in _NAMES.items()}
    getters = {part: [field_getter(name) for name in found] for part, found in names.items()}

    def value_of(row: Row, part: str) -> Any:
        for get in getters[part]:
            value = get(row)
            if value is not MISSING and value is not None:
                return value
        return None

    def text_of(row: Row, part: str) -> str:
        value = value_of(row, part)
        if value is not None and not isinstance(value, str):
            raise BadRecord(f"the {part} is {kind_of(value)}; accepted: a text")
        return value or ""

    def read(row: Row) -> list[Message]:
        if not isinstance(row, dict):
            raise BadRecord(f"the record is {kind_of(row)}; accepted: an object with fields")
        task, answer = value_of(row, "instruction"), value_of(row, "output")
        if task is None:
            raise _missing(row, "instruction", names)
        if answer is None:
            raise _missing(row, "output", names)
        task = _with_input(task, text_of(row, "input"))
        messages = [*_side(task, "user", "instruction"), *_side(answer, "assistant", "output")]
        add_system(messages, text_of(row, "system"))
        add_reasoning(messages, text_of(row, "reasoning"), "reasoning")
        return messages

    return read


def prompt_and_completion(row: dict[str, Any], names: Sequence[str]) -> list[Message]:
    """The messages of a chat record that has these two fields in place of `names`.

    Raises:
        BadRecord: it has not.
    """
    prompt, completion = row.get("prompt"), row.get("completion")
    if prompt is None or completion is None:
        raise BadRecord(
            f"there are no turns; accepted: the field {' or '.join(names)}, or prompt and "
            f"completion; there are: {names_of(row)}"
        )
    return [*_side(prompt, "user", "prompt"), *_side(completion, "assistant", "completion")]


def _with_input(task: Any, more: str) -> Any:
    if not more:
        return task
    if not isinstance(task, str):
        raise BadRecord("an input goes below a text, but the instruction is a list of turns")
    return f"{task}\n{more}" if task else more


def _side(value: Any, role: str, field: str) -> list[Message]:
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, list):
        return messages_of(value, field)[0]
    raise BadRecord(f"the {field} is {kind_of(value)}; accepted: a text, or a list of turns")


def _missing(row: dict[str, Any], part: str, names: dict[str, tuple[str, ...]]) -> BadRecord:
    accepted = " or ".join(names[part])
    return BadRecord(
        f"there is no {part}; accepted: the field {accepted}, or another that `mapping` names; "
        f"there are: {names_of(row)}"
    )
