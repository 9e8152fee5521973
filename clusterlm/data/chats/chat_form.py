"""What a conversation is but for its words, and the same conversation with other words.

The form is roles, which keys a message has, what is empty, the names of arguments, numbers. The
words are its leaves: whole contents, thoughts and answer apart where a template looks at </think>,
and the texts in calls and tools. Arguments and parameters are one leaf each, since their keys are
the user's: else every tool would make a form of its own.

    message  {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {..}}]}
    leaves                                                                 f                {..}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from clusterlm.data.chats.chat_render import Message, Tools, normalized

# a text, or an object that a template writes as JSON
Leaf = str | dict[str, Any]
# a leaf and its key -> what is put in its place
Take = Callable[[Any, str], Any]

# nine characters, as the ids of calls that Mistral's templates count
STAND_INS = re.compile("\ue0f6([0-9]{7})\ue0a8")
_STAND_IN = "\ue0f6{:07d}\ue0a8"
# a leaf in the key of a form
_LEAF = "\ue0f6"

# templates look at these
_KEPT = ("role", "type")
_OPAQUE = ("arguments", "parameters")
_THOUGHT_START, _THOUGHT_END = "<think>", "</think>"


class Form(NamedTuple):
    """What a conversation is but for its words.

    Attributes:
        key: equal for conversations of one form.
        leaves: the words, in their order in the messages.
        is_plain: no words have whitespace around them, or stand in other keys than content.
        messages: as the template gets them.
    """

    key: tuple[str, ...]
    leaves: list[Leaf]
    is_plain: bool
    messages: list[Message]


def form_of(messages: Sequence[Message], tools: Tools | None, *, has_thoughts: bool) -> Form:
    """The form of a conversation; `has_thoughts`: the template looks at </think>."""
    key: list[str] = []
    leaves: list[Leaf] = []
    given = list(messages)
    is_plain = tools is None

    def take(leaf: Any, name: str) -> Any:
        leaves.append(leaf)
        return _LEAF if isinstance(leaf, str) else {_LEAF: 0}

    for i, message in enumerate(given):
        content: Any = message.get("content")
        is_usual = type(content) is str and len(message) == 2
        if is_usual and has_thoughts and content.count(_THOUGHT_END) == 1:
            key.append(f"{message['role']}: {_mapped_thoughts(content, take)}")
            is_plain = False
        elif is_usual and (words := content.strip()):
            key.append(message["role"])
            leaves.append(content)
            is_plain = is_plain and len(words) == len(content)
        else:
            given[i] = message = normalized(message)
            key.append(repr(_mapped_message(message, take, has_thoughts)))
            is_plain = False
    if tools is not None:
        key.append(f"tools {_mapped(tools, '', take)!r}")
    return Form(tuple(key), leaves, is_plain, given)


class Probe:
    """A conversation with stand-ins for its words.

    Attributes:
        texts: leaves that are texts -> the message whose whole content they are, or -1.
    """

    def __init__(
        self,
        messages: Sequence[Message],
        tools: Tools | None,
        has_thoughts: bool,
        left: str,
        right: str,
    ) -> None:
        self.num_leaves = 0
        self.texts: dict[int, int] = {}
        self._around = (left, right)
        self.messages: list[Message] = []
        for i, message in enumerate(messages):
            first = self.num_leaves
            self.messages.append(_mapped_message(message, self._take, has_thoughts))
            is_whole = first in self.texts and set(message) == {"role", "content"}
            if is_whole and message["role"] != "function_call":
                is_whole = self.messages[i]["content"] == _STAND_IN.format(first)
                self.texts[first] = i if is_whole else -1
        self.tools = None if tools is None else _mapped(tools, "", self._take)

    def _take(self, leaf: Any, name: str) -> Any:
        stand_in = _STAND_IN.format(self.num_leaves)
        self.num_leaves += 1
        if not isinstance(leaf, str):
            return {stand_in: 0}
        self.texts[self.num_leaves - 1] = -1
        # templates count the characters of ids
        left, right = ("", "") if name.endswith("id") else self._around
        return left + stand_in + right


def _mapped_message(message: Message, take: Take, has_thoughts: bool) -> Message:
    content = message.get("content")
    if not (has_thoughts and type(content) is str and content.count(_THOUGHT_END) == 1):
        return {key: _mapped(value, key, take) for key, value in message.items()}
    return {
        key: _mapped_thoughts(value, take) if key == "content" else _mapped(value, key, take)
        for key, value in message.items()
    }


def _mapped(value: Any, name: str, take: Take) -> Any:
    """The same value with every leaf in it replaced, in order, by what `take` gives for it."""
    if isinstance(value, str):
        return take(value, name) if name not in _KEPT and value.strip() else value
    if isinstance(value, dict):
        if name in _OPAQUE and value:
            return take(value, name)
        return {key: _mapped(held, key, take) for key, held in value.items()}
    if isinstance(value, list):
        return [_mapped(held, name, take) for held in value]
    return value


def _mapped_thoughts(content: str, take: Take) -> str:
    r"""Two leaves, and around them <think>, </think> and the whitespace that is there.

    # "<think>\n" leaf "\n</think>\n\n" leaf
    """
    thoughts, _, answer = content.partition(_THOUGHT_END)
    opened = thoughts.lstrip()
    inner = opened[len(_THOUGHT_START) :] if opened.startswith(_THOUGHT_START) else opened
    words, said = inner.strip(), answer.lstrip()
    before = thoughts[: len(thoughts) - len(inner.lstrip())]
    behind = thoughts[len(before) + len(words) :]
    space = answer[: len(answer) - len(said)]
    taken = take(words, "") if words else ""
    return f"{before}{taken}{behind}{_THOUGHT_END}{space}{take(said, '') if said else ''}"
