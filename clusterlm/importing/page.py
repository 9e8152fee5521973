"""A page of documentation: commands stand in it between fences, and its words are no commands."""

from __future__ import annotations

import re
from typing import NamedTuple

_FENCE = re.compile(r"^\s{0,3}(```+|~~~+)")
_TRAINS = re.compile(r"\b(torchrun|deepspeed|accelerate launch|torch\.distributed|impruver run)\b")


class Fenced(NamedTuple):
    """Lines between two fences."""

    first: int
    """1-based, in the page."""
    last: int
    text: str

    @property
    def lines(self) -> str:
        """`18-75`, or `72`."""
        return f"{self.first}-{self.last}" if self.last > self.first else str(self.first)

    @property
    def may_train(self) -> bool:
        """A launcher is named in it."""
        return _TRAINS.search(self.text) is not None


def fenced_in(text: str) -> list[Fenced]:
    """What stands between fences, in order; empty where there are none, as in a script."""
    found: list[Fenced] = []
    rows = text.splitlines()
    begun: tuple[int, str] | None = None
    for number, row in enumerate(rows, start=1):
        fence = _FENCE.match(row)
        if begun is None:
            begun = (number, fence[1]) if fence else None
        elif fence and fence[1].startswith(begun[1]):
            found.append(Fenced(begun[0] + 1, number - 1, "\n".join(rows[begun[0] : number - 1])))
            begun = None
    return found


def how_to_import(blocks: list[Fenced]) -> str:
    """`is a page with commands ...`: which lines to copy, and what to type then."""
    training = [block for block in blocks if block.may_train]
    if not training:
        return (
            "is a page, and none of the commands between its fences starts a training; "
            "copy the one that trains into a file run.sh, then: clusterlm import run.sh"
        )
    first, *others = training
    more = f" (or {', '.join(b.lines for b in others)})" if others else ""
    return (
        f"is a page with commands between fences: copy lines {first.lines}{more} "
        "into a file run.sh, and a JSON that it names beside it, then: clusterlm import run.sh"
    )
