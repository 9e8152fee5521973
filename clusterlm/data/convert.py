"""Records -> what is encoded: a text, or a conversation as messages like OpenAI's.

`converter_of` looks at a source once and builds a function for its records: what can be decided
beforehand (fields, bounds, layout) is decided there, and what a source does not ask for costs
nothing. A text takes well under a microsecond, a chat of four turns some five.

Three things may be wrong with a record. It does not hold what its source says (BadRecord):
`data.on_bad_record` decides, for most likely the source was described wrongly. It is sound and not
wanted (Dropped): filters, bounds, a converter that gave nothing. It is a conversation that cannot
be trained on (Dropped too, with what `conversation.py` found): every data set of the net has some,
so they are left out and counted by reason. What can be mended without a guess is mended and told
as a note. A record is never changed.

A new kind of source is one function here and one line in KINDS.

    conversation   what a conversation must be       turns       how turns are written
    filters        where, bounds, fields by name     pairs       a task and its answer
    own_converter  a user's function                 character   a persona with dialogs
    tool_calls     tools, and calls of them
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from clusterlm.data.kinds.character import dialogs_of
from clusterlm.data.kinds.conversation import (
    NOTES,
    OPENINGS,
    REASONS,
    BadRecord,
    Conversation,
    Dropped,
    Message,
    Row,
    check_turns,
    kind_of,
    names_of,
    num_chars,
    with_thoughts,
)
from clusterlm.data.kinds.filters import MISSING, Getter, field_getter, length_filter, row_filter
from clusterlm.data.kinds.own_converter import own_function
from clusterlm.data.kinds.pairs import pairs_of, prompt_and_completion
from clusterlm.data.kinds.tool_calls import parsed, tools_of
from clusterlm.data.kinds.turns import (
    add_reasoning,
    add_system,
    messages_of,
    rows_of,
    without_opening,
)
from clusterlm.data.kinds.written import encoded
from clusterlm.spec.sources import (
    ChatSource,
    ConversationSource,
    CustomSource,
    InstructSource,
    Source,
    TextSource,
)

__all__ = [
    "NOTES",
    "REASONS",
    "BadRecord",
    "Conversation",
    "Converter",
    "Dropped",
    "Message",
    "Row",
    "converter_of",
    "domain_of",
    "with_thoughts",
]

Converter = Callable[[Row], str | Conversation]

TURN_FIELDS = ("messages", "conversations", "conversation")


def converter_of(source: Source) -> Converter:
    """What turns the records of a source into texts or conversations.

    The function it gives raises Dropped or BadRecord, and nothing else.

    Raises:
        DataError: the user's own converter cannot be loaded.
    """
    convert: Converter = KINDS[source.kind](source)
    check = row_filter(source)
    if check is None:
        return convert

    def convert_some(row: Row) -> str | Conversation:
        check(row)
        return convert(row)

    return convert_some


def domain_of(row: Row, source: Source) -> str | None:
    """What a record's domain field says; None where it has none."""
    if source.domain is None:
        return None
    value = field_getter(source.domain)(row)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) and value != "" else None


def _text(source: TextSource) -> Converter:
    get, name = field_getter(source.field), source.field
    check_length = length_filter(source)

    def convert(row: Row) -> str:
        text = row if isinstance(row, str) else get(row)
        if not isinstance(text, str):
            raise _no_field(row, text, name, "a text")
        if not text or text.isspace():
            raise Dropped("empty", "the text is empty")
        if check_length is not None:
            check_length(len(text))
        return text

    return convert


def _chat(source: ChatSource) -> Converter:
    if source.layout == "character":
        return _character(source)
    names = (source.field,) if source.field else TURN_FIELDS
    fields = [(name, field_getter(name)) for name in names]
    layout, reasoning = source.layout, dict(source.mapping).get("reasoning")
    get_system, get_tools = field_getter("system"), field_getter(source.tools)
    get_reasoning = field_getter(reasoning) if reasoning else None
    finish = _finisher(source)

    def convert(row: Row) -> Conversation:
        if not isinstance(row, dict):
            raise BadRecord(f"the record is {kind_of(row)}; accepted: an object with fields")
        notes: list[str] = []
        name, value = _turns_of(row, fields)
        if value is None:
            messages, is_sharegpt = prompt_and_completion(row, names), False
        else:
            if isinstance(value, str):
                value = parsed(value, name)
            rows = _layout_rows(value, name, layout)
            messages, is_sharegpt = messages_of(rows, name, layout=layout, reasoning=reasoning)
        if is_sharegpt:
            add_system(messages, get_system(row))
            messages = without_opening(messages, notes)
        if get_reasoning is not None and (beside := get_reasoning(row)) is not MISSING:
            add_reasoning(messages, beside, str(reasoning))
        tools = get_tools(row)
        tools = None if tools is MISSING else tools_of(tools, source.tools)
        return finish(messages, tools, notes)

    return convert


def _character(source: ChatSource) -> Converter:
    read, finish = dialogs_of(source), _finisher(source)

    def convert(row: Row) -> Conversation:
        if not isinstance(row, dict):
            raise BadRecord(f"the record is {kind_of(row)}; accepted: an object with fields")
        sound: list[Conversation] = []
        first: Dropped | None = None
        dialogs = read(row)
        for messages in dialogs:
            try:
                sound.append(finish(messages, None, []))
            except Dropped as dropped:
                first = first or dropped
        if not sound:
            raise first or Dropped("empty", "no dialogs")
        lost = ("dialog_left_out",) * (len(dialogs) - len(sound))
        head = sound[0]
        return Conversation(head.messages, None, head.notes + lost, tuple(sound[1:]))

    return convert


def _instruct(source: InstructSource) -> Converter:
    read, finish = pairs_of(source), _finisher(source)

    def convert(row: Row) -> Conversation:
        return finish(read(row), None, [])

    return convert


def _custom(source: CustomSource) -> Converter:
    call = own_function(source.converter, source.options)
    check_length, finish = length_filter(source), _finisher(source)
    where = "what the converter gave"

    def convert(row: Row) -> str | Conversation:
        # a copy, for the function may change what it gets
        found = call(dict(row) if isinstance(row, dict) else {"text": row})
        tools = None
        if found is None:
            raise Dropped("left_out", "the converter gave nothing")
        if isinstance(found, str):
            _ = found.isascii() or encoded(found)
            if not found or found.isspace():
                raise Dropped("empty", "the converter gave an empty text")
            if check_length is not None:
                check_length(len(found))
            return found
        if isinstance(found, dict) and "messages" in found:
            tools, found = tools_of(found.get("tools"), f"{where}: tools"), found["messages"]
        if not isinstance(found, list | tuple):
            raise BadRecord(
                f"{where} is {kind_of(found)}; accepted: a text, a list of messages, "
                "an object with messages and tools, or None"
            )
        messages, _ = messages_of(list(found), where)
        for message in messages:
            _ = message["content"].isascii() or encoded(message["content"])
        return finish(messages, tools, [])

    return convert


KINDS: dict[str, Callable[[Any], Converter]] = {
    "text": _text,
    "chat": _chat,
    "instruct": _instruct,
    "custom": _custom,
}


_Finish = Callable[[list[Message], list[dict[str, Any]] | None, list[str]], Conversation]


def _finisher(source: ConversationSource) -> _Finish:
    """What checks the turns of a conversation and their length, and gives it its system turn."""
    check_length, prompt = length_filter(source), source.system_prompt

    def finish(
        messages: list[Message], tools: list[dict[str, Any]] | None, notes: list[str]
    ) -> Conversation:
        messages = check_turns(messages, notes)
        if check_length is not None:
            check_length(num_chars(messages))
        if prompt and messages[0]["role"] not in OPENINGS:
            messages = [{"role": "system", "content": prompt}, *messages]
        return Conversation(messages, tools, tuple(notes))

    return finish


def _turns_of(row: Row, fields: Sequence[tuple[str, Getter]]) -> tuple[str, Any]:
    """The first field that holds something, and what it holds; else None."""
    for name, get in fields:
        value = get(row)
        if value is not MISSING and value is not None:
            return name, value
    return "", None


def _layout_rows(value: Any, name: str, layout: str) -> list[Any]:
    is_columns = isinstance(value, dict)
    if is_columns and layout not in ("auto", "dialog"):
        raise BadRecord(f"{name} is {kind_of(value)}; layout: {layout} wants a list of turns")
    if layout == "dialog" and not is_columns:
        raise BadRecord(
            f"{name} is {kind_of(value)}; layout: dialog wants {{role: [], content: []}}"
        )
    return rows_of(value, name)


def _no_field(row: Any, value: Any, name: str, accepted: str) -> BadRecord:
    if not isinstance(row, dict):
        return BadRecord(f"the record is {kind_of(row)}; accepted: an object with field {name}")
    if value is MISSING:
        return BadRecord(f"the field {name} is missing; there are: {names_of(row)}")
    return BadRecord(f"the field {name} is {kind_of(value)}; accepted: {accepted}")
