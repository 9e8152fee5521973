"""docs/job-yaml.md, made from the sections and the docstrings under their fields.

    python -m clusterlm.spec.reference > docs/job-yaml.md

A test keeps the file in the repository equal to what this makes.
"""

from __future__ import annotations

import ast
import inspect
import sys
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from clusterlm.spec import units
from clusterlm.spec.base import ARGUMENT, GRAMMARS, ONE_LINE, Spec
from clusterlm.spec.job import Job
from clusterlm.spec.sources import ConversationSource, SourceBase

PREFACE = """\
# job.yaml

<!-- made by `python -m clusterlm.spec.reference`; edit the docstrings in clusterlm/spec instead -->

One file says what is trained, on what, and where. `clusterlm check job.yaml` reads it and names
every mistake at once, each with its place and line. Keys that are not listed here are mistakes.

- **Durations** are `90s`, `30m`, `3h`, `2d`, also together (`1d12h`), or Slurm times: `3:50:00`,
  `4-23:59:59`. A bare number is minutes, as in sbatch.
- **Sizes** carry their unit: `512M`, `64G`, `1.5T` (powers of 1024).
- **Counts** are whole numbers, also written `20K`, `3M`, `1B`, `1_000_000` or `2e9`.
- **Paths** are relative to the folder of the YAML. `~` is your home, `{stdlib}` the folder of
  Python's standard library; put a path that begins with `{` or `*` in quotes. A model or tokenizer
  `name` is a folder if there is one of that name, or if it begins with `./`, `../`, `/` or `~`;
  else it is a hub id. A dataset on the hub stands under `hub`, never under `path`.
- **Text that looks like something else** stays what you typed: `12:30:00`, `2026-01-01` and `0755`
  are no numbers. Values under `env` are text whatever they look like. `yes`, `no`, `on` and `off`
  are accepted where a key is true or false.
- **Changes on the command line:** `--set resources.nodes=2 --set data.sources[0].path=other.jsonl`.
  Each value is read as YAML. They are made in their order, before anything is checked.
- **Anchors and aliases** (`&name`, `*name`, `<<: *name`) work as in any YAML.
"""

HEAD = """\
| key | type | default | |
|---|---|---|---|
"""

SHARED: dict[type, str] = {SourceBase: "every kind", ConversationSource: "conversations"}
"""Sections whose keys others have too, by what is said of them in their title."""

_UNITS: dict[Any, str] = {
    units.seconds_of: "duration",
    units.mebibytes_of: "size",
    units.count_of: "count",
}
_PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}

_Titles = dict[type[Spec], str]
"""Sections that have their table, or will have it, by the title it stands under."""


def render_reference() -> str:
    """The whole page."""
    titles: _Titles = {}
    return f"{PREFACE}\n{HEAD}" + _table_and_parts(Job, "", titles)


def _table_and_parts(section: type[Spec], path: str, titles: _Titles) -> str:
    """The rows of a section, and below them the sections within it."""
    help_texts, known = _help_texts(section), set(titles)
    rows = []
    for name, info in [(name, section.model_fields[name]) for name in help_texts]:
        key = info.alias or name
        words = _words(_annotation(info), f"{path}.{key}" if path else key, titles)
        bounds = _bounds(info, "s" if words == "duration" else "")
        cells = [f"`{key}`", words + bounds, _default(info), help_texts[name]]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    text = "".join(rows)
    for shared in (base for base in section.__bases__ if base in SHARED):
        text += f"\nFurther keys: those of {_link(shared, path, titles)}.\n"
    for part, title in [item for item in titles.items() if item[0] not in known]:
        about = inspect.cleandoc(part.__doc__ or "")
        inner = _table_and_parts(part, title.partition(" ")[0], titles)
        text += f"\n## {title}\n\n{about}\n\n{HEAD}{inner}"
    return text


def _annotation(info: FieldInfo) -> Any:
    # pydantic takes Annotated apart: the metadata of the outermost one stands beside the type
    return Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation


def _help_texts(section: type[Spec]) -> dict[str, str]:
    """The string under each field of its own, by field."""
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(section)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    texts = {}
    for field, text in zip(body, body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(text, ast.Expr), f"{section.__name__}.{field.target.id} has no help"
            texts[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return texts


def _words(annotation: Any, path: str, titles: _Titles) -> str:
    """The type in words; a section in it is noted as one that needs a table."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _metadata_words(arguments[1:]) or _words(arguments[0], path, titles)
    if origin in (Union, UnionType):
        kinds = [a for a in arguments if a is not type(None)]
        return " or ".join(_words(kind, path, titles) for kind in kinds)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin is list:
        return "list of: " + _words(arguments[0], f"{path}[]", titles)
    if origin is dict:
        return _mapping_words(arguments[0], arguments[1], path, titles)
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return _link(annotation, path, titles)
    return _PLAIN[annotation]


def _mapping_words(keys: Any, values: Any, path: str, titles: _Titles) -> str:
    if values is Any:
        return "mapping"
    names = _words(keys, path, titles) if get_origin(keys) is Literal else "names"
    if get_origin(values) in (Union, UnionType):
        return f"mapping of {names} to a value, or a list of them"
    kind = get_args(values)[0] if get_origin(values) is Annotated else values
    return f"mapping of {names} to {_words(kind, path, titles)}"


def _metadata_words(metadata: tuple[Any, ...]) -> str:
    for item in metadata:
        if isinstance(item, FieldInfo):
            words = _metadata_words(tuple(item.metadata))
        elif isinstance(item, BeforeValidator):
            words = _UNITS.get(item.func, "")
        else:
            pattern = getattr(item, "pattern", "")
            words = "text" if pattern in (ONE_LINE, ARGUMENT) else GRAMMARS.get(pattern, "")
        if words:
            return words.replace("only ", "text, only ", 1) if words.startswith("only") else words
    return ""


def _link(section: type[Spec], path: str, titles: _Titles) -> str:
    kind = section.model_fields.get("kind")
    about = f"kind: {get_args(kind.annotation)[0]}" if kind else SHARED.get(section)
    own_title = f"{path.partition(' ')[0]} ({about})" if about else path
    title = titles.setdefault(section, own_title)
    # as GitHub makes it: no punctuation, spaces to hyphens
    anchor = "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")
    return f"[{title}](#{anchor})"


def _bounds(info: FieldInfo, unit: str) -> str:
    found = []
    for item in info.metadata:
        for key, words in _BOUNDS.items():
            if (limit := getattr(item, key, None)) is not None:
                found.append(f"{words} {limit}{unit}")
    return ", " + ", ".join(found) if found else ""


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.default
    if info.default_factory is not None or value is None or value in ([], {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if "duration" in _words(_annotation(info), "", {}):
        return f"`{value}`" if isinstance(value, str) else f"`{value}s`"
    return f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(render_reference())
