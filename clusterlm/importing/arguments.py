"""argv as options with their values, the way argparse reads them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from clusterlm.importing.shell import readable

Option = tuple[str, list[str], str]
"""Name without dashes, its values, and how it was written."""


def options_of(argv: list[str]) -> Iterator[Option]:
    """`--name a b`, `--name=a` and `-n a`; names have `_` for `-`.

    A word that belongs to no option is one of the name "".
    """
    name, values, written = "", [], []
    for word in argv:
        match = re.fullmatch(r"(--?[A-Za-z][\w.-]*)(?:=(.*))?", word, re.DOTALL)
        if match is None:
            if name:
                values.append(word)
                written.append(word)
            else:
                yield "", [word], readable(word)
            continue
        if name:
            yield name, values, readable(" ".join(written))
        name = match[1].lstrip("-").replace("-", "_")
        values, written = [], [word]
        if match[2] is not None:
            yield name, [match[2]], readable(word)
            name = ""
    if name:
        yield name, values, readable(" ".join(written))


def split_at_program(argv: list[str], flags: Collection[str]) -> tuple[list[str], list[str]]:
    """Options of a launcher, and the program with what follows it.

    Args:
        argv: without the launcher itself.
        flags: options, with `_` for `-`, that take no value; every other takes one.
    """
    at = 0
    while at < len(argv) and argv[at].startswith("-"):
        name = argv[at].lstrip("-").replace("-", "_")
        takes_next = "=" not in name and name not in flags
        at += 2 if takes_next else 1
    return argv[:at], argv[at:]


def scalar(text: str) -> Any:
    """The value that Python would read: True, 3, 2e-4, else the text."""
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    if re.fullmatch(r"[-+]?\d{1,18}", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text):
        return float(text)
    return text


def value_of(values: list[str]) -> Any:
    """One value, a list of several, or True for an option that stands alone."""
    if not values:
        return True
    return scalar(values[0]) if len(values) == 1 else [scalar(value) for value in values]
