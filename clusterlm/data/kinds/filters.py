"""Which records are taken: `where`, `where_not`, `min_chars`, `max_chars`; and fields by name.

A name with dots (`meta.lang`) is a field of that very name, or else one within another. Values are
compared with their types, as JSON has them: "1" is not 1 and true is not 1, but 1 is 1.0. A record
without the field has none of the values: `where` leaves it out, `where_not` lets it pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from clusterlm.data.kinds.conversation import Dropped, Row, kind_of
from clusterlm.spec.sources import FieldValues, SourceBase
from clusterlm.spec.wording import shown

MISSING: Final = object()
"""In place of a field that a record does not have; null is a value."""

Getter = Callable[[Row], Any]


@cache
def field_getter(name: str) -> Getter:
    """Finds the field `name` of a record; MISSING where there is none."""

    def get(row: Row) -> Any:
        return row.get(name, MISSING) if isinstance(row, dict) else MISSING

    if "." not in name:
        return get
    parts = name.split(".")

    def get_within(row: Row) -> Any:
        value: Any = get(row)
        if value is not MISSING:
            return value
        value = row
        for part in parts:
            if not isinstance(value, dict) or part not in value:
                return MISSING
            value = value[part]
        return value

    return get_within


def has_filter(source: SourceBase) -> bool:
    """Whether records are left out by what they hold, for which all of one must be there."""
    bounds = source.min_chars > 0 or source.max_chars is not None
    return bounds or bool(source.where) or bool(source.where_not)


def row_filter(source: SourceBase) -> Callable[[Row], None] | None:
    """What raises Dropped for a record that is not to be taken; None when all are."""
    wanted = [(name, *_test_of(name, values)) for name, values in _listed(source.where)]
    refused = [(name, *_test_of(name, values)) for name, values in _listed(source.where_not)]
    if not wanted and not refused:
        return None

    def check(row: Row) -> None:
        for name, get, is_one in wanted:
            if not is_one(value := get(row)):
                raise Dropped("filtered", f"{name} is {_said(value)}")
        for name, get, is_one in refused:
            if is_one(value := get(row)):
                raise Dropped("filtered", f"{name} is {_said(value)}")

    return check


def length_filter(source: SourceBase) -> Callable[[int], None] | None:
    """What raises Dropped for a number of characters out of bounds; None when there are none."""
    fewest, most = source.min_chars, source.max_chars
    if not fewest and most is None:
        return None
    ceiling = float("inf") if most is None else most

    def check(num_chars: int) -> None:
        if num_chars < fewest:
            raise Dropped("too_short", f"{num_chars} characters; at least {fewest}")
        if num_chars > ceiling:
            raise Dropped("too_long", f"{num_chars} characters; at most {most}")

    return check


def _listed(values: FieldValues) -> list[tuple[str, list[Any]]]:
    return [(name, v if isinstance(v, list) else [v]) for name, v in values.items()]


def _test_of(name: str, values: list[Any]) -> tuple[Getter, Callable[[Any], bool]]:
    # true == 1 in Python, and both have the same hash
    flags = frozenset(v for v in values if isinstance(v, bool))
    others = frozenset(v for v in values if not isinstance(v, bool))

    def is_one(value: Any) -> bool:
        try:
            return value in (flags if isinstance(value, bool) else others)
        except TypeError:
            # lists and objects have no hash, and are equal to no single value
            return False

    return field_getter(name), is_one


def _said(value: Any) -> str:
    if value is MISSING:
        return "missing"
    return shown(value) if isinstance(value, str) else kind_of(value)
