"""Messages -> text by a Jinja chat template, character for character as transformers renders it.

The same sandbox, blocks and filters as there, but for `strftime_now`: a template that prints the
date would give other tokens tomorrow, so its day is fixed. {% generation %} marks are accepted and
change nothing; most templates lack them and some set them wrong, so masks are found without them.

Templates come from the internet and run in Jinja's sandbox. What it checks at every look-up costs
more than the rendering; look-ups that are safe by their type (a key of a dict, a method of a text)
are answered without the checks, which halves the time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import BuiltinMethodType
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils

from clusterlm.errors import DataError

Message = dict[str, Any]
Tools = list[dict[str, Any]]

# a template that prints the date would give other tokens tomorrow; this is Llama-3.1's default
_FIXED_DAY = datetime(2024, 7, 26)

# the first of these that a message has is its thoughts, under whatever name a template looks
THOUGHTS = ("reasoning_content", "thinking", "reasoning")

# json.dumps makes one at every call
_ENCODER = json.JSONEncoder(ensure_ascii=False)

_NOT_IN_SANDBOX = ("format", "format_map")
_TEXT_METHODS = {n for n in dir(str) if not n.startswith("_") and n not in _NOT_IN_SANDBOX}
_DICT_METHODS = set(dir(dict))
_LOOP_NAMES = {"index", "index0", "first", "last", "previtem", "nextitem", "length"}

# what a template that does not fit its messages ends in
_REFUSALS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class Renderer:
    """A compiled template with the special tokens it may name."""

    def __init__(self, source: str, specials: Mapping[str, str]) -> None:
        """Compile `source`; `specials` maps bos_token, eos_token, ... to their text.

        Raises:
            DataError: it is no valid Jinja.
        """
        self._environment = _environment()
        try:
            template = self._environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise DataError(f"chat template, line {error.lineno}: {error.message}") from error
        self._pieces = template.root_render_func
        self._blocks = template.blocks
        self._names: dict[str, Any] = {**template.globals, "documents": None, **specials}

    def render(
        self,
        messages: Sequence[Message],
        tools: Tools | None = None,
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """The conversation as text.

        Raises:
            ValueError: the template refuses these messages.
        """
        names = self._names.copy()
        names["messages"] = messages
        names["tools"] = tools
        names["add_generation_prompt"] = add_generation_prompt
        # as template.render() does, which makes two more copies of the names
        context = jinja2.runtime.Context(self._environment, names, None, self._blocks)
        try:
            return "".join(self._pieces(context))
        except _REFUSALS as error:
            raise ValueError(f"the chat template refuses the conversation: {error}") from error


def normalized(message: Message) -> Message:
    """As transformers hands it to a template: no empty keys, thoughts under all their names."""
    if None in message.values():
        message = {key: value for key, value in message.items() if value is not None}
    thoughts = next((message[key] for key in THOUGHTS if key in message), None)
    if thoughts is None:
        return message
    return {"thinking": thoughts, **message, "reasoning_content": thoughts}


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox with short ways for what every template does at every message."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        kind = type(obj)
        if kind is dict and attribute not in _DICT_METHODS:
            if attribute in obj:
                return obj[attribute]
            return self.undefined(obj=obj, name=attribute)
        if (kind is str and attribute in _TEXT_METHODS) or (
            kind is jinja2.runtime.LoopContext and attribute in _LOOP_NAMES
        ):
            return getattr(obj, attribute)
        if kind is _Names and attribute in (held := object.__getattribute__(obj, "_held")):
            return held[attribute]
        return super().getattr(obj, attribute)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902
        if __obj is _Names or (type(__obj) is BuiltinMethodType and type(__obj.__self__) is str):
            kwargs.pop("_loop_vars", None)
            kwargs.pop("_block_vars", None)
            return __obj(*args, **kwargs)
        return super().call(__context, __obj, *args, **kwargs)


class _Names(jinja2.utils.Namespace):
    """What `namespace()` gives; as transformers' own: no names with an underscore in front."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, names = args[0], dict(*args[1:], **kwargs)
        for name in names:
            _check_name(name)
        object.__setattr__(self, "_held", names)

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return object.__getattribute__(self, name)
        try:
            return _held(self)[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        _held(self)[name] = value


def _held(names: _Names) -> dict[str, Any]:
    held: dict[str, Any] = object.__getattribute__(names, "_held")
    return held


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a chat template may not set {name!r}")


class _Generation(jinja2.ext.Extension):
    """Accepts {% generation %} ... {% endgeneration %} and renders what stands inside."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # names set inside stay inside, as they do in transformers
        return jinja2.nodes.Scope(body, lineno=line)


def _environment() -> _Sandbox:
    environment = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, jinja2.ext.loopcontrols],
    )
    helpers: dict[str, Callable[..., Any]] = {
        "raise_exception": _refuse,
        "strftime_now": _FIXED_DAY.strftime,
        "namespace": _Names,
    }
    environment.filters["tojson"] = to_json
    environment.globals.update(helpers)
    return environment


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter of this name, as transformers has it: Jinja's own escapes HTML."""
    if not (ensure_ascii or indent is not None or separators or sort_keys):
        return _ENCODER.encode(value)
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
