"""The form of a conversation, learnt once, and the spans of all conversations of that form.

For each form (`chat_form.py`) the template renders a conversation of stand-ins, which gives the
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

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

from clusterlm.data.chats.chat_form import STAND_INS, Form, Probe
from clusterlm.data.chats.chat_render import Message, Renderer, Tools, to_json
from clusterlm.data.chats.chat_turns import Region, Span, spans_of

Writer = Callable[[Any], str]

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
    probe = Probe(messages, tools, has_thoughts, "", "")
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
    rules = _rules(renderer, Probe(messages, tools, has_thoughts, _LEFT, _RIGHT), order, between)
    for i, (left, right) in rules.items():
        writers[i] = _writer(left, right)
    writes_json = any("json" in pair for pair in rules.values())
    return Layout(
        between, order, writers, marks, num_leaves=probe.num_leaves, writes_json=writes_json
    )


def _find_leaves(
    text: str, probe: Probe
) -> tuple[list[int], list[Region], list[Writer | None]] | None:
    """Which leaves stand in the text, where, and how objects are written.

    None when an object is written in a way that is not known.
    """
    order: list[int] = []
    regions: list[Region] = []
    writers: list[Writer | None] = []
    for match in STAND_INS.finditer(text):
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
    renderer: Renderer, probe: Probe, order: list[int], between: list[str]
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
