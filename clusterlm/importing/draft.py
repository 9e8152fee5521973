"""The job that is being drafted: its values, what each was, and what became of the rest.

Nothing of the source is lost in silence: a thing is put somewhere (the comment beside the value
says what it was), left out with a reason, or unclear. What the job needs and the source does not
say is asked for, with a placeholder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

FILL_IN = "./CHANGE_ME"
"""Stands for a path; nothing is there, so that no job starts with it."""


@dataclass
class Draft:
    """A job.yaml in the making.

    Attributes:
        values: nested, as they will be written.
        comments: by dotted place, what stands behind the value.
        left_out: what has no place in a job, and why.
        unclear: what somebody has to look at.
        to_fill_in: places whose values are placeholders, and why.
        files: what goes beside the job.yaml, by name: a script wrote it for itself.
        origins: what the source files are, for the head of the file.
    """

    values: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    unclear: list[tuple[str, str]] = field(default_factory=list)
    to_fill_in: dict[str, str] = field(default_factory=dict)
    origins: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    num_translated: int = 0

    def put(self, place: str, value: Any, was: str = "") -> None:
        """Write a value; `was` is what it was in the source. The first one said stays."""
        if self.has(place) and place not in self.to_fill_in:
            if self.get(place) != value:
                self.note(was or place, f"{place} is {self.get(place)} already; which is right?")
            return
        self._write(place, value, was)
        self.num_translated += bool(was)

    def add(self, place: str, value: Any, why: str = "") -> None:
        """Write what follows from the kind of the source, where the source itself says nothing."""
        if not self.has(place):
            self._write(place, value, why)

    def extend(self, place: str, item: Any, was: str = "") -> None:
        """Add to a list, unless it is in it."""
        items = self.get(place) or []
        before = self.comments.get(place, "")
        comment = ", ".join(dict.fromkeys(word for word in (before, was) if word))
        self._write(place, items if item in items else [*items, item], comment)

    def ask(self, place: str, value: Any, why: str) -> None:
        """Write a placeholder, where there is no value yet."""
        if not self.has(place):
            self._write(place, value, f"CHANGE: {why}")
            self.to_fill_in[place] = why

    def drop(self, what: str, why: str) -> None:
        """Leave something out, for a reason."""
        if (what, why) not in self.left_out:
            self.left_out.append((what, why))

    def note(self, what: str, why: str) -> None:
        """Say what could not be understood, or has to be looked at."""
        if (what, why) not in self.unclear:
            self.unclear.append((what, why))

    def has(self, place: str) -> bool:
        """Whether something stands there."""
        return self.get(place) is not None

    def get(self, place: str) -> Any:
        """What stands there, or None."""
        value: Any = self.values
        for key in place.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def remove(self, place: str) -> None:
        """Take a value back."""
        outer, _, last = place.rpartition(".")
        holder = self.get(outer) if outer else self.values
        if isinstance(holder, dict):
            holder.pop(last, None)
        self.comments.pop(place, None)

    def _write(self, place: str, value: Any, comment: str) -> None:
        *outer, last = place.split(".")
        holder = self.values
        for key in outer:
            if not isinstance(holder.get(key), dict):
                holder[key] = {}
            holder = holder[key]
        holder[last] = value
        self.to_fill_in.pop(place, None)
        self.comments.pop(place, None)
        if comment:
            self.comments[place] = comment


def grouped(rows: list[tuple[str, str]]) -> list[str]:
    """Lines for people: what has the same reason stands together."""
    by_reason: dict[str, list[str]] = {}
    for what, why in rows:
        # https://user:password@host: the password must not go on from here
        by_reason.setdefault(why, []).append(re.sub(r"(?<=://)[^/@\s]*@", "***@", what))
    return [f"{', '.join(what)}: {why}" for why, what in by_reason.items()]


def run_name(text: str) -> str:
    """The text as the name of a run: lower case, digits, `.`, `_`, `-`."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")
    return name[:64] or "imported"
