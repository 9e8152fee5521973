"""Paths of a job.yaml, made absolute: relative to the YAML's folder, `~` and `{stdlib}` filled in.

What a job holds then means the same from every folder and node, so spec.json can stand alone. A
name that may be a hub id (tokenizer.name, model.name) is a path when it begins with ./ ../ / or ~,
or when a folder of that name is there. A converter or a model's class that lies beside the YAML
becomes `/folder/conv.py:function`; any other is of an installed package and stays as it is.
"""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

from clusterlm.errors import Problem
from clusterlm.spec.chat_template import is_file
from clusterlm.spec.place import Place, dotted
from clusterlm.spec.wording import printable

PLACEHOLDERS: dict[str, Callable[[], str]] = {"stdlib": lambda: sysconfig.get_path("stdlib")}


def make_paths_absolute(values: dict[str, Any], folder: str) -> list[Problem]:
    """Change every path of a job in place; what is no text is left for the schema to refuse."""
    problems = []
    for holder, key, place, is_path in path_keys(values, folder):
        text = holder[key]
        unknown = [p for p in re.findall(r"\{([^{}]*)\}", text) if p not in PLACEHOLDERS]
        if unknown:
            message = f"{{{printable(unknown[0][:60])}}} is no placeholder; accepted: {{stdlib}}"
            problems.append(Problem(dotted(place), message))
        elif is_path:
            holder[key] = absolute(text, folder)
    for source, _ in sources_of(_mapping(values, "data")):
        converter = source.get("converter")
        if _is_text(converter):
            source["converter"] = absolute_converter(converter, folder)
    model = _mapping(values, "model")
    for holder in (model, _mapping(model, "from_scratch")):
        if _is_text(holder.get("class")):
            # written as a converter is: my_model.py:Class
            holder["class"] = absolute_converter(holder["class"], folder)
    return problems


def absolute(text: str, folder: str) -> str:
    """One path, or glob, as seen from `folder`."""
    for name, value in PLACEHOLDERS.items():
        if f"{{{name}}}" in text:
            text = text.replace(f"{{{name}}}", value())
    return os.path.abspath(os.path.join(folder, os.path.expanduser(text)))


def looks_like_path(text: str) -> bool:
    """Written as a path: `./model`, `../model`, `/model`, `~/model`, `{stdlib}`."""
    return text.startswith(("./", "../", "/", "~", "{")) or text in {".", ".."}


def absolute_converter(text: str, folder: str) -> str:
    """`conv.py:f` and, where there is such a file, `conv.f` and `package.conv:f`."""
    if text.endswith(".py"):
        # names no function; a rule says so
        return text
    module, colon, name = text.rpartition(":" if ":" in text else ".")
    if module.endswith(".py") and colon == ":":
        return f"{absolute(module, folder)}:{name}"
    path = absolute(module.replace(".", "/") + ".py", folder)
    return f"{path}:{name}" if module and os.path.isfile(path) else text


_Found = tuple[Any, str | int, Place, bool]


def path_keys(values: dict[str, Any], folder: str) -> Iterator[_Found]:
    """Where paths stand: what holds the text, its key there, its place, whether it is a path."""
    data, model, train = (_mapping(values, key) for key in ("data", "model", "train"))
    tokenizer = _mapping(data, "tokenizer")
    yield from _image_paths(_mapping(values, "image"))
    for source, where in sources_of(data):
        if _is_text(source.get("path")):
            yield source, "path", (*where, "path"), True
    if _is_text(train.get("deepspeed")):
        yield train, "deepspeed", ("train", "deepspeed"), True
    adapter = _mapping(model, "adapter")
    # the patterns' files are read where the spec is made: `inlined.py`
    for key in ("continue_from", "rank_pattern", "alpha_pattern"):
        if _is_text(adapter.get(key)):
            yield adapter, key, ("model", "adapter", key), True
    template = tokenizer.get("chat_template")
    # a template itself is full of braces
    if _is_text(template) and is_file(template):
        yield tokenizer, "chat_template", ("data", "tokenizer", "chat_template"), True
    for holder, place in [(tokenizer, ("data", "tokenizer")), (model, ("model",))]:
        name = holder.get("name")
        if _is_text(name):
            is_path = looks_like_path(name) or os.path.isdir(os.path.join(folder, name))
            yield holder, "name", (*place, "name"), is_path
    command = train.get("command")
    if isinstance(command, list) and command and _is_text(program := command[0]):
        beside = os.path.isfile(os.path.join(folder, program))
        is_path = beside or program.endswith(".py") or looks_like_path(program)
        # a program may have braces in its name; only paths are looked at
        if is_path:
            yield command, 0, ("train", "command", 0), True


def _image_paths(image: dict[str, Any]) -> Iterator[_Found]:
    for key in ("file", "requirements", "wheelhouse"):
        if _is_text(image.get(key)):
            yield image, key, ("image", key), True
    mounts = image.get("mounts")
    for number, mount in enumerate(mounts if isinstance(mounts, list) else []):
        # relative to what? A mount says where the folder is seen inside, too: only `~` is filled in
        if _is_text(mount) and mount.startswith("~"):
            yield mounts, number, ("image", "mounts", number), True


def sources_of(data: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Place]]:
    """Sources of data, those that are held back too, and their places."""
    held_back = _mapping(data, "validation")
    holders: list[tuple[dict[str, Any], Place]] = [
        (data, ("data",)),
        (held_back, ("data", "validation")),
    ]
    for holder, place in holders:
        sources = holder.get("sources")
        for number, source in enumerate(sources if isinstance(sources, list) else []):
            if isinstance(source, dict):
                yield source, (*place, "sources", number)


def _mapping(holder: dict[str, Any], key: str) -> dict[str, Any]:
    value = holder.get(key)
    return value if isinstance(value, dict) else {}


def _is_text(value: object) -> TypeGuard[str]:
    # NUL cannot stand in a path; the grammar of the key refuses it
    return isinstance(value, str) and value != "" and "\x00" not in value
