"""Paths of a job.yaml, made absolute: relative to the YAML's folder, `~` and `{stdlib}` filled in.

What a job holds then means the same from every folder and node, so spec.json can stand alone. A
name that may be a hub id (tokenizer.name, model.name) is a path when it begins with ./ ../ / or ~,
or when a folder of that name is there.
"""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

from clusterlm.errors import Problem
from clusterlm.spec.place import Place, dotted
from clusterlm.spec.wording import printable

PLACEHOLDERS: dict[str, Callable[[], str]] = {"stdlib": lambda: sysconfig.get_path("stdlib")}


def make_paths_absolute(values: dict[str, Any], folder: str) -> list[Problem]:
    """Change every path of a job in place; what is no text is left for the schema to refuse."""
    problems = []
    for holder, key, place, is_path in _path_keys(values, folder):
        text = holder[key]
        unknown = [p for p in re.findall(r"\{([^{}]*)\}", text) if p not in PLACEHOLDERS]
        if unknown:
            message = f"{{{printable(unknown[0][:60])}}} is no placeholder; accepted: {{stdlib}}"
            problems.append(Problem(dotted(place), message))
        elif is_path:
            holder[key] = absolute(text, folder)
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


_Found = tuple[Any, str | int, Place, bool]


def _path_keys(values: dict[str, Any], folder: str) -> Iterator[_Found]:
    """Where paths stand: what holds the text, its key there, its place, whether it is a path."""
    data, model, train = (_mapping(values, key) for key in ("data", "model", "train"))
    tokenizer, validation = _mapping(data, "tokenizer"), _mapping(data, "validation")
    yield from _image_paths(_mapping(values, "image"))
    yield from _sources(data, ("data",))
    yield from _sources(validation, ("data", "validation"))
    for holder, key, place in [
        (tokenizer, "chat_template", ("data", "tokenizer")),
        (train, "deepspeed", ("train",)),
    ]:
        if _is_text(holder.get(key)):
            yield holder, key, (*place, key), True
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


def _sources(holder: dict[str, Any], place: Place) -> Iterator[_Found]:
    sources = holder.get("sources")
    for number, source in enumerate(sources if isinstance(sources, list) else []):
        if isinstance(source, dict) and _is_text(source.get("path")):
            yield source, "path", (*place, "sources", number, "path"), True


def _mapping(holder: dict[str, Any], key: str) -> dict[str, Any]:
    value = holder.get(key)
    return value if isinstance(value, dict) else {}


def _is_text(value: object) -> TypeGuard[str]:
    # NUL cannot stand in a path; the grammar of the key refuses it
    return isinstance(value, str) and value != "" and "\x00" not in value
