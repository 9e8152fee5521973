"""One source of data: where it lies, what is taken of it, what its records hold.

A new kind is one class here, one function in `data/convert.py`, one test.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from clusterlm.spec.base import CONVERTER, HUB_NAME, SPLIT, Line, Revision, Spec
from clusterlm.spec.units import Count, Flag

Scalar = str | int | float | bool | None
FieldValues = dict[str, Scalar | list[Scalar]]

Role = Literal[
    "system", "user", "assistant", "tool", "function_call", "function_response", "developer"
]


class SourceBase(Spec):
    """What every kind of source may say."""

    path: Line | None = None
    """File, folder or glob (`**` too), relative to the YAML; `{stdlib}` is Python's own library.
    Read: .jsonl .json .csv .tsv .parquet .arrow, each also .gz or .zst where it is text; folders
    that `datasets` saved; any other file is plain text."""
    hub: str | None = Field(None, pattern=HUB_NAME)
    """Dataset on the hub, in place of `path`."""
    subset: Line | None = None
    """Configuration of a hub dataset, or a folder of a saved one."""
    revision: Revision | None = None
    """Commit or tag on the hub."""
    split: str | None = Field(None, pattern=SPLIT, max_length=120)
    """Split of a hub or saved dataset, and which rows: `train`, `train[:1000]`, `[10%:]`; for files
    only the rows."""
    exclude: list[Line] = []
    """Globs to leave out, matched against the path below the folder that `path` starts in."""
    where: FieldValues = {}
    """Only records whose fields have these values: `{lang: [ru, en]}`."""
    where_not: FieldValues = {}
    """No records whose fields have these values: `{label: bad_output}`."""
    min_chars: Count = Field(0, ge=0)
    """Leave out records of fewer characters (of all turns together)."""
    max_chars: Count | None = Field(None, ge=1)
    """Leave out records of more characters."""
    max_documents: Count | None = Field(None, ge=1)
    """Take no more records than this, the first that can be used."""
    domain: Line | None = None
    """Field to be kept for statistics, such as a language or a site."""
    epochs: float = Field(1.0, gt=0, le=1000)
    """How often the source is seen in one pass: 2 doubles it, 0.5 takes half of its documents."""
    weight: float | None = Field(None, gt=0)
    """Share of the trained tokens, relative to the other sources, in place of `epochs`."""
    validation: float | None = Field(None, ge=0, lt=1)
    """Share of this source that is held back, in place of `data.validation.fraction`."""


class TextSource(SourceBase):
    """Documents: a text field of records, a whole file, or a line of it."""

    kind: Literal["text"]
    """Which kind of source this is."""
    field: Line = "text"
    """Field that holds the text, in files of records."""
    documents: Literal["file", "line"] = "file"
    """What one document is in files that hold no records: the whole file, or each line of it."""


class ConversationSource(SourceBase):
    """What every kind of conversation may say."""

    only_target_loss: Flag = True
    """Train the answers only; false trains every token of the conversation."""
    train_turns: Literal["all", "last"] = "all"
    """Train every answer, or only the last one."""
    role_weights: dict[Role, Annotated[float, Field(ge=0, le=1)]] = {}
    """Weight (0 to 1) of each role's words in the loss; left out: 1 for assistant and
    function_call, else 0."""
    system_prompt: str | None = Field(None, max_length=100_000)
    """System turn for conversations that have none."""
    max_tokens: Count | None = Field(None, ge=2)
    """Leave out conversations of more tokens."""
    add_bos: Flag = False
    """Put the tokenizer's beginning-of-text token in front, where the template does not."""
    add_eos: Flag = True
    """End with the end-of-text token where the last answer ends without a special token."""


class ChatSource(ConversationSource):
    """Conversations: a list of turns; the assistant's are trained."""

    kind: Literal["chat"]
    """Which kind of source this is."""
    layout: Literal["auto", "messages", "sharegpt", "dialog", "character"] = "auto"
    """`messages`: {role, content}; `sharegpt`: {from, value}; `dialog`: two lists, role and
    content; `character`: a persona with a dialog. `auto` tells the first three apart."""
    field: Line | None = None
    """Field that holds the turns; default: messages, conversations or conversation."""
    tools: Line = "tools"
    """Field that holds the tools a conversation may call, if there is one."""
    mapping: dict[Literal["name", "context", "greeting", "example", "reasoning"], Line] = {}
    """Fields of a `character` record, or of an answer's `reasoning`, where they have other
    names."""


class InstructSource(ConversationSource):
    """A task and its answer in two fields; the answer is trained."""

    kind: Literal["instruct"]
    """Which kind of source this is."""
    mapping: dict[Literal["instruction", "input", "output", "system", "reasoning"], Line] = {}
    """Which field holds what. Left out: instruction, prompt or question; input or context; output,
    response, completion or answer. `reasoning` goes into the answer as
    `<think>...</think>`."""


class CustomSource(ConversationSource):
    """Records of any form, turned into a text or into messages by your own function."""

    kind: Literal["custom"]
    """Which kind of source this is."""
    converter: str = Field(pattern=CONVERTER, max_length=1024)
    """`convert.to_messages` or `convert.py:to_messages` beside the YAML, or a function of an
    installed package. It gets a record (a dict) and gives a text, a list of messages, a dict with
    `messages` and `tools`, or None to leave the record out."""
    options: dict[str, Any] = {}
    """Further arguments of the function, by name."""


Source = Annotated[
    TextSource | ChatSource | InstructSource | CustomSource, Field(discriminator="kind")
]
