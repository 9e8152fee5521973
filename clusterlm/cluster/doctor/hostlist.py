"""`gpu[01-03,7],login1` -> gpu01 gpu02 gpu03 gpu7 login1: Slurm's way to write many nodes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

MOST = 100_000
"""A text that means more is no list of nodes."""
_ENTRY = re.compile(r"(?:[^,\[]|\[[^\]]*\])+")
_RANGES = re.compile(r"\[([^\]]*)\]")


def expand(text: str) -> list[str]:
    """Each node, in the order of the text; what cannot be read is left as it is."""
    found: list[str] = []
    for entry in _ENTRY.findall(text.strip()):
        for name in _expand_entry(entry.strip()):
            if len(found) >= MOST:
                return found
            found.append(name)
    return found


def _expand_entry(entry: str) -> Iterator[str]:
    match = _RANGES.search(entry)
    if match is None:
        yield entry
        return
    head, rest = entry[: match.start()], entry[match.end() :]
    for number in _numbers(match[1]):
        # a rack and a node: r[1-2]n[1-4]
        yield from _expand_entry(f"{head}{number}{rest}")


def _numbers(ranges: str) -> Iterator[str]:
    for part in ranges.split(","):
        first, dash, last = part.partition("-")
        if dash and first.isdecimal() and last.isdecimal() and int(last) - int(first) < MOST:
            # 08-11: leading zeros stay
            yield from (f"{n:0{len(first)}}" for n in range(int(first), int(last) + 1))
        else:
            yield part
