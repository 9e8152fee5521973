"""How a mistake is put into words: found values made safe to print, and the nearest right name."""

from __future__ import annotations

import re
from collections.abc import Iterable

LONGEST_SHOWN = 60


def shown(value: object) -> str:
    """A found value, fit for a terminal: one line, control characters escaped, long text cut."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if not isinstance(value, str):
        return str(value)[:LONGEST_SHOWN]
    # https://user:password@host: the password must not go on from here into a log
    value = re.sub(r"(?<=://)[^/@]*@", "***@", value)
    cut = value if len(value) <= LONGEST_SHOWN else value[:LONGEST_SHOWN] + "..."
    size = "" if cut is value else f" ({len(value)} characters)"
    return f'"{printable(cut)}"{size}'


def printable(text: str) -> str:
    """The text with every character that is not printable (also bidi marks) as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(error: Exception, most: int | None = None) -> str:
    """What a library says, in one line and at most so many characters."""
    return " ".join(str(error).split())[:most]


def did_you_mean(word: str, accepted: Iterable[str]) -> str:
    """`did you mean ...?`, or the list of what is accepted when nothing is near."""
    names = list(accepted)
    near = _nearest(word, names)
    return f"did you mean `{near}`?" if near else "accepted: " + ", ".join(names)


def or_nearest(word: str, accepted: Iterable[str]) -> str:
    """`; did you mean ...?`, or nothing: for names that are too many to be listed."""
    near = _nearest(word, accepted)
    return f"; did you mean `{near}`?" if near else ""


def _nearest(word: str, names: Iterable[str]) -> str | None:
    """The name most like the word, whatever the case of either."""
    # only a mistake pays for this import
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in sorted(names)}
    near = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else None


def times(number: int, singular: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {singular}" + ("" if number == 1 else "s")
