"""Messages -> rendered text, and which spans of it are trained: the assistant's words and ends.

Stock templates lack {% generation %} markers or set them wrong, so spans are found by comparing
renderings. The turns before, with the generation prompt, tell where an answer starts; the turns up
to and with it, where it ends. Where these are no prefix of the whole (templates without a
generation prompt, or that rewrite earlier turns), the answer's words are those that change when
others are put in their place. An answer that cannot be told so is not trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from clusterlm.data.convert import Message
from clusterlm.errors import DataError

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")

# a template that prints the date would give other tokens tomorrow; this is Llama-3.1's default
_FIXED_DAY = datetime(2024, 7, 26)

# of a private use area: in no text, and changed by no template
_STAND_IN = "\ue0f5\ue0a7"

from typing import NamedTuple


class Span(NamedTuple):
    start: int
    end: int
    message: int


class Rendered(NamedTuple):
    text: str
    spans: list


class ChatTemplate:
    """A compiled Jinja chat template with the special tokens it may name."""

    def __init__(self, source: str, specials: Mapping[str, str]) -> None:
        """Compile `source`; `specials` maps bos_token, eos_token, ... to their text.

        Raises:
            DataError: it is no valid Jinja.
        """
        self._specials = dict(specials)
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise DataError(f"chat template, line {error.lineno}: {error.message}") from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The conversation as text.

        Raises:
            ValueError: the template refuses these messages.
        """
        try:
            return self._template.render(
                messages=list(messages),
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self._specials,
            )
        except (jinja2.TemplateError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"the chat template refuses the conversation: {error}") from error

    def render_with_spans(self, messages, tools=None):
        """The text, and the character spans [start, end) of the assistant's words and turn ends.

        # <|im_start|>user Hi<|im_end|> <|im_start|>assistant Hello<|im_end|>
        #                                                     ^^^^^^^^^^^^^^^
        """
        text = self.render(messages)
        spans: list[Span] = []
        for i, message in enumerate(messages):
            if message["role"] == "assistant":
                span = self._span(messages, i, text)
                if span is not None and span[0] < span[1]:
                    spans.append(Span(*span, i))
        return Rendered(text, spans)

    def _span(self, messages: Sequence[Message], i: int, text: str) -> Span | None:
        content = self._content_span(messages, i, text)
        start, end = self._start(messages, i, text), self._end(messages, i, text)
        if start is None and content is not None:
            start = content[0]
            # "[/INST] Hello": the space belongs to the first token of the answer
            while start and text[start - 1] == " ":
                start -= 1
        if end is None and content is not None:
            end = content[1]
            mark = self._mark_behind(messages, i)
            end += len(mark) if text.startswith(mark, end) else 0
        if start is None or end is None:
            return None
        # the newline behind <|im_end|> is the template's, not the assistant's
        return start, start + len(text[start:end].rstrip())

    def _start(self, messages: Sequence[Message], i: int, text: str) -> int | None:
        """Behind the generation prompt, where the template has one and it stands in the text."""
        prompt = self._try(messages[:i], add_generation_prompt=True)
        if prompt is None or prompt == self._try(messages[:i]) or not text.startswith(prompt):
            return None
        return len(prompt)

    def _end(self, messages: Sequence[Message], i: int, text: str) -> int | None:
        """Behind the answer's turn, where the turns up to it are rendered as in the text."""
        upto = self._try(messages[: i + 1])
        return len(upto) if upto is not None and text.startswith(upto) else None

    def _content_span(self, messages: Sequence[Message], i: int, text: str) -> Span | None:
        """Where the answer's words stand: what changes when another word is put in their place."""
        marked = self._try(_replaced(messages, i))
        if marked is None or marked.count(_STAND_IN) != 1:
            return None
        before, _, behind = marked.partition(_STAND_IN)
        end = len(text) - len(behind)
        is_same = text.startswith(before) and text.endswith(behind) and len(before) <= end
        return (len(before), end) if is_same else None

    def _mark_behind(self, messages: Sequence[Message], i: int) -> str:
        """What ends the turn: <|im_end|>."""
        marked = self._try(_replaced(messages[: i + 1], i)) or ""
        return marked.partition(_STAND_IN)[2].rstrip()

    def _try(self, messages: Sequence[Message], **options: bool) -> str | None:
        try:
            return self.render(messages, **options)
        except ValueError:
            return None


def _replaced(messages: Sequence[Message], i: int) -> list[Message]:
    return [*messages[:i], {**messages[i], "content": _STAND_IN}, *messages[i + 1 :]]


class _Generation(jinja2.ext.Extension):
    """Accepts {% generation %} ... {% endgeneration %} and renders what stands inside."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    # as transformers sets it up, so that a template renders the same here and there
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _FIXED_DAY.strftime
    return environment


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
