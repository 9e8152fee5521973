"""Where each message's words stand in the rendered text, found by comparing renderings.

Templates say nothing about it: most lack {% generation %} marks, and some set them wrong. But each
can be asked again with something changed.

    start   of an answer: where the turns before it, with the generation prompt, end: what the model
            is given when it is to answer. A template that writes none: where another answer in
            its place would start. Of other turns: where the words start.
    words   what changes when other words are put in their place.
    end     where the turns up to and with this one end: behind <|im_end|>. Where these stand not so
            in the whole text (the template rewrites earlier turns): behind the words and the mark
            that ends the turn, if it stands there.

The newline behind <|im_end|> is the template's, not the message's; whitespace at the end of the
words is the message's own. The space in "[/INST] Hello" goes with the first token of the answer,
so spaces before words belong to them. A message that cannot be told so has no span.

Every look is a rendering, so this takes time that grows with the square of the turns; it runs once
for each form of conversation (`chat_layout.py`), and for those that have no form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clusterlm.data.chats.chat_render import THOUGHTS, Message, Renderer, Tools

ANSWERS = ("assistant", "function_call")
"""Roles that the model speaks in."""

# of a private use area: in no text, and changed by no template
_STAND_IN = "\ue0f5\ue0a7"

# parts of an answer besides its content
_PARTS = ("tool_calls", "function_call", *THOUGHTS)

Region = tuple[int, int]


class Span(NamedTuple):
    """Characters [start, end) of the text that are the words of messages[message]."""

    start: int
    end: int
    message: int


def spans_of(
    renderer: Renderer,
    messages: Sequence[Message],
    tools: Tools | None,
    text: str,
    known_words: Mapping[int, Region] | None = None,
) -> list[Span]:
    """The span of every message that can be told exactly, in the order of the text.

    `text` is what the messages and tools are rendered to; `known_words` tells where the words of
    some messages stand, which saves to look.
    """
    turns = _Turns(renderer, messages, tools, text, known_words or {})
    found = sorted(span for i in range(len(messages)) if (span := turns.span(i)) is not None)
    return [span for span in _parted(found, turns) if span.start < span.end]


def _parted(spans: list[Span], turns: _Turns) -> list[Span]:
    """A mark that is taken for the end of one turn may be the beginning of the next."""
    parted: list[Span] = []
    for span in spans:
        if parted and span.start < parted[-1].end:
            words = turns.words(parted[-1].message)
            if words is None or words[1] > span.start:
                # two messages claim the same characters: neither is told exactly
                parted[-1] = parted[-1]._replace(end=max(parted[-1].end, span.end), message=-1)
                continue
            parted[-1] = parted[-1]._replace(end=span.start)
        parted.append(span)
    return [span for span in parted if span.message >= 0]


class _Turns:
    """One conversation, with what was rendered of it so far."""

    def __init__(
        self,
        renderer: Renderer,
        messages: Sequence[Message],
        tools: Tools | None,
        text: str,
        known_words: Mapping[int, Region],
    ) -> None:
        self._renderer = renderer
        self._messages = list(messages)
        self._tools = tools
        self._text = text
        self._words: dict[int, Region | None] = dict(known_words)
        self._first: dict[int, str | None] = {}

    def span(self, i: int) -> Span | None:
        words = self.words(i)
        start, end = self._prompt_end(i), self._turn_end(i)
        if words is None:
            # an answer is told by its turn, too: what stands behind the prompt is the model's
            if start is None or end is None or end < start:
                return None
            return Span(start, start + len(self._text[start:end].rstrip()), i)
        if start is None:
            start = self._with_spaces(i, words[0], self._text)
        if end is None or end < words[1]:
            end = words[1] + self._mark_behind(i, words[1])
        stripped = len(self._text[:end].rstrip())
        return Span(start, max(stripped, words[1]), i)

    def words(self, i: int) -> Region | None:
        """What changes when other words are put in the place of a message's."""
        if i not in self._words:
            self._words[i] = self._changed(i)
        return self._words[i]

    def _changed(self, i: int) -> Region | None:
        message = self._messages[i]
        for other in _others(message):
            marked = self._try([*self._messages[:i], other, *self._messages[i + 1 :]])
            if marked is None or marked.count(_STAND_IN) != 1:
                continue
            before, _, behind = marked.partition(_STAND_IN)
            if other.keys() != message.keys() or other["role"] != message["role"]:
                # a call may start otherwise than words: [TOOL_CALLS] has no space in front
                before = before[: self._with_spaces(i, len(before), before)]
            end = len(self._text) - len(behind)
            is_same = self._text.startswith(before) and self._text.endswith(behind)
            if is_same and len(before) <= end:
                return len(before), end
        return None

    def _prompt_end(self, i: int) -> int | None:
        """Where the model goes on from, if it is an answer."""
        if self._messages[i]["role"] not in ANSWERS:
            return None
        prompt = self._try(self._messages[:i], add_generation_prompt=True)
        if prompt is None:
            return None
        if prompt == self._upto(i):
            # no generation prompt: [INST] Hi [/INST] | Hello
            answer = {"role": "assistant", "content": _STAND_IN}
            marked = self._try([*self._messages[:i], answer]) or ""
            if marked.count(_STAND_IN) != 1:
                return None
            before = marked.partition(_STAND_IN)[0]
            prompt = before[: self._with_spaces(i, len(before), before)]
        return len(prompt) if self._text.startswith(prompt) else None

    def _turn_end(self, i: int) -> int | None:
        upto = self._upto(i + 1)
        return len(upto) if upto is not None and self._text.startswith(upto) else None

    def _with_spaces(self, i: int, start: int, text: str) -> int:
        """The start of words with the spaces before them, but for those of the words before."""
        before = self.words(i - 1) if i else (0, 0)
        floor = start if before is None else before[1]
        while start > floor and text[start - 1] == " ":
            start -= 1
        return start

    def _mark_behind(self, i: int, end: int) -> int:
        """Length of what ends the turn, <|im_end|>, if it stands behind its words."""
        for other in _others(self._messages[i]):
            marked = self._try([*self._messages[:i], other]) or ""
            if marked.count(_STAND_IN) == 1:
                mark = marked.partition(_STAND_IN)[2].rstrip()
                return len(mark) if self._text.startswith(mark, end) else 0
        return 0

    def _upto(self, i: int) -> str | None:
        """The first `i` turns, rendered alone."""
        if i not in self._first:
            self._first[i] = self._try(self._messages[:i])
        return self._first[i]

    def _try(self, messages: Sequence[Message], **options: bool) -> str | None:
        try:
            return self._renderer.render(messages, self._tools, **options)
        except ValueError:
            return None


def _others(message: Message) -> list[Message]:
    """Messages with other words in the place of this one's."""
    said = {**message, "content": _STAND_IN}
    answer = {"role": "assistant", "content": _STAND_IN}
    if any(message.get(part) for part in _PARTS):
        return [answer]
    return [answer, said] if message["role"] == "function_call" else [said]
