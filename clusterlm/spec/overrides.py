"""`--set a.b.c=value`: changes to the values of a file before they are checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clusterlm.errors import Problem
from clusterlm.spec.document import NotYaml, read_value
from clusterlm.spec.place import Place, dotted, place_of
from clusterlm.spec.wording import printable, shown, times

FORM = "write --set resources.nodes=2 or --set data.sources[0].path=x"


class BadOverride(Exception):
    """An override that cannot be applied; the text says why."""


def apply_overrides(
    values: dict[str, Any], overrides: Sequence[str]
) -> tuple[list[Place], list[Problem]]:
    """Change `values` in place, one override after the other.

    Returns:
        The places that were set, and a problem for each override that could not be applied.
    """
    places: list[Place] = []
    problems = []
    for text in overrides:
        key = text.partition("=")[0].strip()
        try:
            places.append(_apply(values, text))
        except BadOverride as error:
            problems.append(Problem(f"--set {printable(key[:60])}", str(error)))
    return places, problems


def _apply(values: dict[str, Any], text: str) -> Place:
    key, equals, written = text.partition("=")
    try:
        place = place_of(key.strip())
    except ValueError:
        raise BadOverride(f"{shown(key)} names no key; {FORM}") from None
    if not equals:
        raise BadOverride(f"no value; {FORM}")
    value = _value(written, place)
    holder: Any = values
    for depth, part in enumerate(place[:-1]):
        holder = _entry(holder, part, place[: depth + 1])
    _set(holder, place[-1], value, place)
    return place


def _value(written: str, place: Place) -> Any:
    # *.txt and {stdlib}/*.py are no YAML without quotes, which a shell takes away: they are text
    try:
        return read_value(written, place)
    except NotYaml:
        return written


def _entry(holder: Any, part: str | int, place: Place) -> Any:
    """What stands at the place, made when it is not there yet."""
    if isinstance(holder, list):
        return holder[_index(holder, part, place)]
    if not isinstance(holder, dict):
        raise BadOverride(f"{dotted(place[:-1])} is {shown(holder)}, which holds no keys")
    if holder.get(str(part)) is None:
        holder[str(part)] = {}
    return holder[str(part)]


def _set(holder: Any, part: str | int, value: Any, place: Place) -> None:
    if isinstance(holder, list):
        holder[_index(holder, part, place)] = value
    elif isinstance(holder, dict):
        holder[str(part)] = value
    else:
        raise BadOverride(f"{dotted(place[:-1])} is {shown(holder)}, which holds no keys")


def _index(holder: list[Any], part: str | int, place: Place) -> int:
    if not isinstance(part, int) or part >= len(holder):
        found = times(len(holder), "item")
        raise BadOverride(f"{dotted(place[:-1])} has {found}; the first is [0]")
    return part
