"""A YAML text as plain values, with the line of every key and value.

YAML 1.1 surprises are left out: 12:30:00 is no base-60 number, 2026-01-01 no date, `no` no boolean
(a true/false key accepts it all the same), 0755 no octal number; they stay the text that was typed.
2e-4 is a number, with or without a dot. Values under `env` are text whatever they look like.

libyaml builds nested values by recursion in C and crashes on deep ones, and an alias can stand for
any number of values, so depth and size are looked at before anything is built.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from clusterlm.errors import Problem
from clusterlm.spec.place import Place, dotted
from clusterlm.spec.wording import shown

DEEPEST = 32
MOST_VALUES = 100_000
TYPED_TEXT = "env"
"""The section whose values are text, as typed: NO, 1.10 and 0755 mean themselves there."""


@dataclass(frozen=True)
class Kind:
    """What a file is, for the messages and the places of its `env`."""

    name: str
    least: str
    """What the smallest such file holds."""
    begins: str
    """How one begins."""
    env_depth: int
    """Level at which `env` stands; its values are text."""


JOB = Kind("job", "a name, data and a model", "name: my-run", 0)
CLUSTERS = Kind("file of clusters", "`clusters:` and a name below it", "clusters:", 2)

_TAG = "tag:yaml.org,2002:"
_NUMBER = r"[-+]?(?:[0-9][0-9_]*)"
_RESOLVERS = (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", tuple("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]{0,17})", tuple("-+0123456789")),
    (
        "float",
        rf"{_NUMBER}(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]{{1,3}})|{_NUMBER}\.[0-9_]*|[-+]?\.[0-9]+",
        tuple("-+0123456789."),
    ),
    ("merge", r"<<", ("<",)),
)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader with the plain scalars that job.yaml knows, and no others."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _name, _regex, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_regex})\Z"), _first)


@dataclass(frozen=True)
class Document:
    """What stands in a file.

    Attributes:
        values: the top-level mapping.
        lines: 1-based line of every key and list entry.
        problems: duplicate keys and values that YAML allows and job.yaml does not.
    """

    values: dict[str, Any]
    lines: dict[Place, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class NotYaml(Exception):
    """The text is no YAML, or none that is safe to build; `problem` says where and why."""

    def __init__(self, message: str, line: int | None = None) -> None:
        self.problem = Problem("YAML", message, line)
        super().__init__(message)


def read_document(text: str, kind: Kind = JOB) -> Document:
    """Values and lines of a YAML text whose top level is a mapping.

    Args:
        text: what stands in the file.
        kind: which file it is.

    Raises:
        NotYaml: it cannot be read any further.
    """
    root = _compose(text, kind)
    if root is None:
        raise NotYaml(f"the file is empty; the least is {kind.least}")
    if not isinstance(root, yaml.MappingNode):
        what = f"the top level is no mapping; write `{kind.begins}` and so on"
        raise NotYaml(what, _line(root))
    document = Document({})
    document.values.update(_Builder(document, kind).build(root, ()))
    return document


def read_value(text: str, place: Place) -> Any:
    """The value of a `--set`, read as it would be at its place in the file.

    Raises:
        NotYaml: it is none.
    """
    root = _compose(text)
    if root is None:
        return "" if place[0] == TYPED_TEXT else None
    document = Document({})
    value = _Builder(document).build(root, place)
    if document.problems:
        raise NotYaml(document.problems[0].message)
    return value


def _compose(text: str, kind: Kind = JOB) -> yaml.Node | None:
    try:
        _refuse_deep_nesting(text)
        root: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise NotYaml(*_explain(error, text, kind)) from error
    except yaml.reader.ReaderError as error:
        before = text.encode("utf-8", "replace")[: error.position]
        code = f"U+{error.character:04X}" if isinstance(error.character, int) else "?"
        message = f"character {code} cannot stand in a YAML file"
        raise NotYaml(message, before.count(b"\n") + 1) from error
    if root is not None:
        size, depth = _measure(root, {})
        if size > MOST_VALUES or depth > DEEPEST:
            raise NotYaml("its aliases, written out, are too large, too deep, or hold themselves")
    return root


def _refuse_deep_nesting(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise NotYaml(f"nested more than {DEEPEST} levels deep", _line(event))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _explain(error: yaml.MarkedYAMLError, text: str, kind: Kind) -> tuple[str, int | None]:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else None
    rows = text.splitlines()
    found = rows[line - 1] if line and line <= len(rows) else ""
    what = f"{error.context}, {error.problem}" if error.context else str(error.problem)
    if re.match(r"\s*\t", found) or "tab character" in what:
        return "a tab; YAML is indented with spaces", line
    if re.search(r":\s*\{\w*\}\S", found):
        return "a value that begins with `{` is read as a mapping; put it in quotes", line
    if "nesting depth" in what:
        # PyYAML has a limit of its own from 6.0.4 on, met before ours is counted
        return f"nested more than {DEEPEST} levels deep", line
    if "single document" in what:
        return f"a second document (`---`); a {kind.name} is one document", line
    if "mapping values are not allowed" in what:
        cure = "put the value in quotes, or mend the indentation"
        return f"a second `: ` in {shown(found.strip())}; {cure}", line
    return f"{what}: {shown(found.strip())}", line


def _measure(node: yaml.Node, known: dict[int, tuple[float, float]]) -> tuple[float, float]:
    """Number of values and levels once every alias is written out; inf for one within itself."""
    if id(node) not in known:
        known[id(node)] = math.inf, math.inf  # met again before it is known: it holds itself
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        measures = [_measure(child, known) for child in children]
        size = 1 + sum(count for count, _ in measures)
        known[id(node)] = size, 1 + max((depth for _, depth in measures), default=0)
    return known[id(node)]


def _line(node: yaml.Node | yaml.Event) -> int:
    return int(node.start_mark.line) + 1 if node.start_mark else 1


class _Builder:
    """Builds values from nodes; notes lines and problems in the document on the way."""

    def __init__(self, document: Document, kind: Kind = JOB) -> None:
        self.document = document
        self.env_depth = kind.env_depth

    def build(self, node: yaml.Node, place: Place) -> Any:
        self.document.lines.setdefault(place, _line(node))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.build(child, (*place, i)) for i, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        return self._refuse_tag(node, place)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        first_lines: dict[str, int] = {}
        # what is merged in goes first, so that lines are those of the keys that win
        pairs = sorted(node.value, key=lambda pair: pair[0].tag != _TAG + "merge")
        for key_node, value_node in pairs:
            if key_node.tag == _TAG + "merge":
                merged = {**self._merged(value_node, place), **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(place, "a key must be a word, not a list or mapping", key_node)
                continue
            key, here = key_node.value, (*place, key_node.value)
            if key in own:
                message = f"written twice, first in line {first_lines[key]}; keep one"
                self._complain(here, message, key_node)
                continue
            first_lines[key] = self.document.lines[here] = _line(key_node)
            own[key] = self.build(value_node, here)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, place: Place) -> dict[str, Any]:
        # `<<: *base` or `<<: [*first, *second]`, of which the first goes before the second
        bases = node.value if isinstance(node, yaml.SequenceNode) else [node]
        values: dict[str, Any] = {}
        for base in bases:
            if not isinstance(base, yaml.MappingNode):
                self._complain((*place, "<<"), "merges a mapping, such as `<<: *base`", base)
                continue
            values = {**self._mapping(base, place), **values}
        return values

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        kind = node.tag.removeprefix(_TAG)
        text: str = node.value
        section = place[self.env_depth : -1]
        if kind == "str" or section[:1] == (TYPED_TEXT,):
            return text
        try:
            if kind == "null":
                return None
            if kind == "bool":
                return text.lower() == "true"
            if kind == "int":
                return int(text.replace("_", ""))
            if kind == "float":
                number = float(text.replace("_", ""))
                return number if math.isfinite(number) else text
        except ValueError:  # an explicit tag on something else: !!int twelve
            self._complain(place, f"{shown(text)} is no {kind}", node)
            return None
        return self._refuse_tag(node, place)

    def _refuse_tag(self, node: yaml.Node, place: Place) -> None:
        self._complain(place, f"the tag {shown(node.tag)} is not accepted; leave it out", node)

    def _complain(self, place: Place, message: str, node: yaml.Node) -> None:
        self.document.problems.append(Problem(dotted(place) or "YAML", message, _line(node)))
