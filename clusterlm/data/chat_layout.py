"""The form of a conversation, learnt once, and the spans of all conversations of that form.

The form is everything but the words: roles, which keys a message has, what is empty, the names of
arguments, numbers. For each form the template renders a conversation of stand-ins, which gives the
template's own text between the words, and `chat_turns.py` says where the spans lie in it:

    form       user, assistant
    rendered   <|im_start|>user|1|<|im_end|>.<|im_start|>assistant|2|<|im_end|>.     . = newline
    layout     <|im_start|>user|     text between the words, and the span of message 1:
               <|im_end|>.<|im_start|>assistant|   from the end of this
               <|im_end|>.                         to 10 characters into this

A second rendering, of stand-ins with whitespace around them, tells what the template does to words:
keeps them, strips them, writes them as JSON. For a conversation of a known form the text between
and the words as the template writes them are put together; only if that is the rendered text, to
the last character, its spans are those of the layout. A template that looks at words (Qwen-3 at
</think>) fails this for some conversations, and these are compared at length. Nothing is taken on
trust, and what a conversation gives does not hang on what was seen before it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

from clusterlm.data.chat_render import Message, Renderer, Tools, normalized, to_json
from clusterlm.data.chat_turns import Region, Span, spans_of

# a text that is replaced, or an object that a template writes as JSON
Leaf = str | dict[str, Any]
Take = Callable[[Any, str], Any]
Writer = Callable[[Any], str]

# templates look at these
_KEPT = ("role", "type")
# the keys of these are the user's: one leaf, else every tool would make a form of its own
_OPAQUE = ("arguments", "parameters")

_THOUGHT_START, _THOUGHT_END = "<think>", "</think>"

# a leaf in the key of a form
_LEAF = "\ue0f6"
# nine characters, as the ids of calls that Mistral's templates count
_STAND_IN = "\ue0f6{:07d}\ue0a8"
_STAND_INS = re.compile("\ue0f6([0-9]{7})\ue0a8")

# whitespace around a stand-in -> what the template does to words, told by what is left of it
_LEFT, _RIGHT = "\n\u2003", "\u2005\n"
_LEFT_RULES = {_LEFT: "keep", "": "strip", "\u2003": "newlines", "\\n\u2003": "json"}
_RIGHT_RULES = {_RIGHT: "keep", "": "strip", "\u2005": "newlines", "\u2005\\n": "json"}


def _in_json(text: str) -> str:
    return to_json(text)[1:-1]


_LEFT_WRITERS: dict[str, Writer] = {"strip": str.lstrip, "newlines": lambda t: t.lstrip("\n")}
_RIGHT_WRITERS: dict[str, Writer] = {"strip": str.rstrip, "newlines": lambda t: t.rstrip("\n")}

# what stands around the key of {key: 0}, by the way an object is written
_AROUND_KEY: tuple[tuple[str, str, Writer], ...] = (
    ('{"', '": 0}', to_json),
    ('{"', '":0}', partial(to_json, separators=(",", ":"))),
    ('{\n    "', '": 0\n}', partial(to_json, indent=4)),
    ('{\n  "', '": 0\n}', partial(to_json, indent=2)),
    ("{'", "': 0}", str),
)


# Span(...) in half the time
_new = tuple.__new__


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


class Layout:
    """The template's text between the words of one form, and where the spans lie in it."""

    def __init__(
        self,
        between: Sequence[str],
        order: list[int],
        writers: list[Writer | None],
        marks: list[tuple[int, int, int, int, int]],
        *,
        num_leaves: int,
        writes_json: bool,
    ) -> None:
        """What was learnt of a form.

        Args:
            between: the template's own text before, between and behind the leaves.
            order: which leaves stand in the text, from left to right.
            writers: how each of them is written; None: as it is.
            marks: spans: text between and offset in it of the start, of the end; the message.
            num_leaves: of the form.
            writes_json: a leaf without whitespace around it may be written otherwise, too.
        """
        # text, leaf, text, leaf, text
        self._parts = [""] * (len(between) + len(order))
        self._parts[::2] = between
        self._order = None if order == list(range(num_leaves)) else order
        self._writers = writers
        self._writes_json = writes_json
        self._marks = [(2 * j, x, 2 * k, y, message) for j, x, k, y, message in marks]

    def spans_in(self, text: str, form: Form) -> list[Span] | None:
        """The spans of a conversation; None when its text is not what the layout says."""
        leaves: list[Any] = form.leaves
        if self._order is not None:
            leaves = [leaves[k] for k in self._order]
        if self._writes_json or not form.is_plain:
            pairs = zip(self._writers, leaves, strict=True)
            leaves = [leaf if write is None else write(leaf) for write, leaf in pairs]
        parts = self._parts.copy()
        parts[1::2] = leaves
        if "".join(parts) != text:
            return None
        starts = list(accumulate(map(len, parts), initial=0))
        return [_new(Span, (starts[j] + x, starts[k] + y, i)) for j, x, k, y, i in self._marks]


def learn_layout(
    renderer: Renderer, messages: Sequence[Message], tools: Tools | None, *, has_thoughts: bool
) -> Layout | None:
    """The layout of the form that these messages have, as the template gets them.

    None when the template refuses stand-ins, or writes what cannot be followed.
    """
    probe = _Probe(messages, tools, has_thoughts, "", "")
    try:
        text = renderer.render(probe.messages, probe.tools)
    except ValueError:
        return None
    found = _find_leaves(text, probe)
    if found is None:
        return None
    order, regions, writers = found
    between = _between(text, regions)
    known = {
        probe.texts[leaf]: region
        for leaf, region in zip(order, regions, strict=True)
        if probe.texts.get(leaf, -1) >= 0 and order.count(leaf) == 1
    }
    marks = []
    for span in spans_of(renderer, probe.messages, probe.tools, text, known):
        start, end = _place(regions, span.start), _place(regions, span.end)
        if start is None or end is None:
            return None
        marks.append((*start, *end, span.message))
    rules = _rules(renderer, _Probe(messages, tools, has_thoughts, _LEFT, _RIGHT), order, between)
    for i, (left, right) in rules.items():
        writers[i] = _writer(left, right)
    writes_json = any("json" in pair for pair in rules.values())
    return Layout(
        between, order, writers, marks, num_leaves=probe.num_leaves, writes_json=writes_json
    )


class _Probe:
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


def _find_leaves(
    text: str, probe: _Probe
) -> tuple[list[int], list[Region], list[Writer | None]] | None:
    """Which leaves stand in the text, where, and how objects are written.

    None when an object is written in a way that is not known.
    """
    order: list[int] = []
    regions: list[Region] = []
    writers: list[Writer | None] = []
    for match in _STAND_INS.finditer(text):
        leaf, (start, end) = int(match[1]), match.span()
        write = None
        if leaf not in probe.texts:
            ways = (
                (len(before), len(behind), way)
                for before, behind, way in _AROUND_KEY
                if text.endswith(before, 0, start) and text.startswith(behind, end)
            )
            before, behind, write = next(ways, (0, 0, None))
            if write is None:
                return None
            start, end = start - before, end + behind
        order.append(leaf)
        regions.append((start, end))
        writers.append(write)
    return order, regions, writers


def _between(text: str, regions: Sequence[Region]) -> list[str]:
    starts = [0, *(end for _, end in regions)]
    ends = [*(start for start, _ in regions), len(text)]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def _place(regions: Sequence[Region], position: int) -> tuple[int, int] | None:
    """Text between the leaves, and offset in it; None inside of a leaf."""
    starts = [0, *(end for _, end in regions)]
    j = bisect_right(starts, position) - 1
    is_inside = j < len(regions) and position > regions[j][0]
    return None if is_inside else (j, position - starts[j])


def _rules(
    renderer: Renderer, probe: _Probe, order: list[int], between: list[str]
) -> dict[int, tuple[str, str]]:
    """What the template does to the whitespace of each leaf, where that can be told."""
    try:
        text = renderer.render(probe.messages, probe.tools)
    except ValueError:
        return {}
    found = _find_leaves(text, probe)
    if found is None or found[0] != order:
        return {}
    is_text = [False, *(leaf in probe.texts for leaf in order), False]
    rights: dict[int, str] = {}
    lefts: dict[int, str] = {}
    for j, spaced in enumerate(_between(text, found[1])):
        for right in _RIGHT_RULES if is_text[j] else ("",):
            for left in _LEFT_RULES if is_text[j + 1] else ("",):
                if spaced == right + between[j] + left:
                    rights[j - 1], lefts[j] = _RIGHT_RULES[right], _LEFT_RULES[left]
    told = (i for i in range(len(order)) if is_text[i + 1] and i in lefts and i in rights)
    return {i: (lefts[i], rights[i]) for i in told}


def _writer(left: str, right: str) -> Writer | None:
    if "json" in (left, right):
        return _in_json
    trim_left, trim_right = _LEFT_WRITERS.get(left), _RIGHT_WRITERS.get(right)
    if trim_left is None or trim_right is None:
        return trim_left or trim_right
    return partial(_trimmed, trim_left, trim_right)


def _trimmed(left: Writer, right: Writer, text: str) -> str:
    return left(right(text))
