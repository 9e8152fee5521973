"""A draft as a job.yaml: sections in the order of docs/job-yaml.md, comments behind the values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from clusterlm.importing.arguments import scalar
from clusterlm.importing.draft import Draft, grouped
from clusterlm.importing.shell import readable
from clusterlm.spec.data import Data, Tokenizer
from clusterlm.spec.document import NotYaml, read_document
from clusterlm.spec.job import Job
from clusterlm.spec.model import Adapter, Model
from clusterlm.spec.resources import Resources
from clusterlm.spec.train import Train

WIDTH = 100
LONGEST_FLOW = 70
ORDER = {
    "": list(Job.model_fields),
    "resources": list(Resources.model_fields),
    "data": list(Data.model_fields),
    "data.tokenizer": list(Tokenizer.model_fields),
    "model": ["name", "revision", "class", *Model.model_fields],
    "model.adapter": list(Adapter.model_fields),
    "train": list(Train.model_fields),
}
Row = tuple[str, str]
"""A line, and the comment behind it."""


def yaml_of(draft: Draft, command: str) -> str:
    """The whole text, ready to be read by `spec.load`."""
    rows: list[Row] = []
    for key in _ordered(draft.values, ""):
        value = draft.values[key]
        if isinstance(value, dict) and rows:
            rows.append(("", ""))
        rows += _rows(key, value, key, 0, draft)
    return "\n".join([*_head(draft, command), *_aligned(rows)]) + "\n"


def _head(draft: Draft, command: str) -> Iterator[str]:
    # a program's name may hold a line break: whatever stands in a comment stays in it
    origins = " ".join(readable(", ".join(draft.origins)).split())
    yield f"# Made by `{readable(command)}`" + (f" of {origins}." if origins else ".")
    yield "# Behind a value stands what it was. Paths are relative to this file."
    if draft.to_fill_in:
        yield "# CHANGE marks what the source does not say: fill it in, then run `clusterlm check`."
    for title, rows in (("Unclear, or worth a look", draft.unclear), ("Left out", draft.left_out)):
        if rows:
            yield "#"
            yield f"# {title}:"
            for line in grouped(rows):
                yield from _wrapped(line, "#   ", "#     ")


def _wrapped(text: str, first: str, others: str) -> Iterator[str]:
    line = first
    for word in readable(text).split():
        if len(line) + len(word) >= WIDTH and line.strip("# "):
            yield line.rstrip()
            line = others
        line += word + " "
    yield line.rstrip()


def _ordered(values: dict[str, Any], place: str) -> list[str]:
    order = ORDER.get(place, [])
    return sorted(values, key=lambda key: order.index(key) if key in order else len(order))


def _rows(key: str, value: Any, place: str, depth: int, draft: Draft) -> Iterator[Row]:
    indent, comment = "  " * depth, _shortened(draft.comments.get(place, ""), value)
    has_comments = any(c.startswith((f"{place}.", f"{place}[")) for c in draft.comments)
    flow = _flow(value)
    if isinstance(value, dict) and (has_comments or not value or len(flow) > LONGEST_FLOW):
        yield f"{indent}{key}:", comment
        for inner in _ordered(value, place):
            yield from _rows(inner, value[inner], f"{place}.{inner}", depth + 1, draft)
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        yield f"{indent}{key}:", comment
        for number, one in enumerate(value):
            yield from _item(one, f"{place}[{number}]", depth + 1, draft)
    elif isinstance(value, str) and "\n" in value:
        yield f"{indent}{key}: |-", comment
        yield from ((f"{indent}  {line}", "") for line in value.split("\n"))
    else:
        yield f"{indent}{key}: {flow}", comment


def _shortened(comment: str, value: Any) -> str:
    """Only the option's name, where its value is the one that stands there."""
    match = re.fullmatch(r"(--?[\w-]+)[= ](.*)|(trainer\.\w+): (.*)", comment, re.DOTALL)
    if match is None:
        return comment
    name, said = match[1] or match[3], match[2] or match[4] or ""
    is_same = said == value or scalar(said) == value or said.split(",") == value
    return name if is_same else comment


def _item(value: dict[str, Any], place: str, depth: int, draft: Draft) -> Iterator[Row]:
    """A source: on one line where that is short and there is nothing to say about it."""
    flow = _flow(value)
    if len(flow) <= LONGEST_FLOW + 20 and not any(c.startswith(place) for c in draft.comments):
        yield f"{'  ' * depth}- {flow}", ""
        return
    start = "  " * depth + "- "
    for key, one in value.items():
        for line, comment in _rows(key, one, f"{place}.{key}", 0, draft):
            yield start + line, comment
            start = "  " * (depth + 1)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(one) for one in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    if not isinstance(value, str):
        return str(value)
    is_plain = re.fullmatch(r"[\w./~@+-][\w./~@+:*-]*(?: [\w./~@+-][\w./~@+*-]*)*", value)
    # a text that reads as something else, 2e5 or true, or as a mark of YAML, goes into quotes
    if is_plain and not value.endswith(":") and not value.startswith("-"):
        with suppress(NotYaml):
            if read_document(f"x: {value}").values == {"x": value}:
                return value
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)


def _number(value: float) -> str:
    if not math.isfinite(value):
        # no number of a job.yaml: the loader says so
        return f'"{value}"'
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    if 0 < abs(value) < 1e-3 or abs(value) >= 1e6:
        digits, _, power = f"{value:.10e}".partition("e")
        digits = digits.rstrip("0")
        return f"{digits}0e{int(power)}" if digits.endswith(".") else f"{digits}e{int(power)}"
    return repr(value)


def _aligned(rows: list[Row]) -> Iterator[str]:
    """Comments of a section in one column; one that is too long stands above its line."""
    start = 0
    while start < len(rows):
        end = next((i for i in range(start + 1, len(rows)) if rows[i] == ("", "")), len(rows))
        block = rows[start:end]
        short = [len(line) for line, comment in block if comment and len(line) <= 48]
        column = max(short, default=0) + 2
        for line, comment in block:
            comment = " ".join(readable(comment).split())
            at = max(column, len(line) + 2)
            if not comment:
                yield line
            elif at + len(comment) + 2 <= WIDTH + 8:
                yield f"{line:<{at}}# {comment}"
            else:
                start_of_line = " " * (len(line) - len(line.lstrip(" "))) + "# "
                yield from _wrapped(comment, start_of_line, start_of_line)
                yield line
        start = end
