"""A place in job.yaml: ("data", "sources", 0, "path") in code, dotted as people read it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from clusterlm.spec.wording import printable

Place = tuple[str | int, ...]

_LONGEST_KEY = 60


def dotted(place: Place) -> str:
    """`data.sources[0].path`, fit for a terminal whatever the keys are."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        key = printable(part if len(part) <= _LONGEST_KEY else part[:_LONGEST_KEY] + "...")
        text += f".{key}" if text else key
    return text


def place_of(text: str) -> Place:
    """The place of `data.sources[0].path` or `data.sources.0.path`.

    Raises:
        ValueError: it is no such text.
    """
    if not re.fullmatch(r"[^.\[\]=\s]+(\[\d{1,4}\]|\.[^.\[\]=\s]+)*", text):
        raise ValueError(text)
    parts = re.findall(r"[^.\[\]]+", text)
    return tuple(int(p) if re.fullmatch(r"[0-9]{1,4}", p) else p for p in parts)


def line_of(where: str, lines: Mapping[Place, int]) -> int | None:
    """Line of a dotted place, or of the nearest one around it that was written."""
    named = {dotted(place): line for place, line in lines.items()}
    while where and where not in named:
        around = re.sub(r"(\.|^)[^.\[]*$|\[\d+\]$", "", where)
        # what is no place at all, such as `a[b`, has nothing around it
        where = around if around != where else ""
    return named[where] if where else None


def is_within(where: str, outer: str) -> bool:
    """The dotted place is the outer one, or lies in it."""
    return where == outer or where.startswith((f"{outer}.", f"{outer}["))
