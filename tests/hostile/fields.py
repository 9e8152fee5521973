"""Every place of a spec that takes a value, found in the models themselves.

A place is a list of steps from the outside in; `filled` makes the smallest spec that has a value
there. A new field is found without a line here; one for which no harmless value is found fails the
test that says so.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

ITEM, KEY, VALUE = "[]", "{key}", "{value}"
HARMLESS = (
    *(
        "x",
        1,
        16,
        64,
        4096,
        "1",
        True,
        0.5,
        "linear",
        "/data/x",
        "a/b",
        "--comment=x",
        "conv.py:f",
        "train",
    ),
    *("x.y", "[MASK]", "user", {}, ["x"], "text", "10m", "torch_dist"),
)


@dataclass(frozen=True)
class Step:
    """Into a key of a section, an item of a list, a key or a value of a mapping."""

    model: type[BaseModel] | None
    key: str
    beside: Any = None
    """Of a mapping: the value of a hostile key, or the key of a hostile value."""


Place = tuple[Step, ...]


def name_of(place: Place) -> str:
    """`resources.extra[]`, of a source with its kind."""
    parts = []
    for step in place:
        kind = step.model.model_fields.get("kind") if step.model else None
        which = f"({get_args(kind.annotation)[0]})" if kind and step.key != "kind" else ""
        parts.append(f"{which}{step.key}")
    return ".".join(parts).replace(f".{ITEM}", ITEM)


def places_in(model: type[BaseModel], above: Place = ()) -> Iterator[Place]:
    """All that can be set in a section and below it."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        yield from _places(field.annotation, (*above, Step(model, key)))
    if model.model_config.get("extra") == "allow":
        yield (*above, Step(model, KEY))
        yield (*above, Step(model, "any_other_key"))


def _places(annotation: Any, place: Place) -> Iterator[Place]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _places(args[0], place)
    elif origin in (Union, types.UnionType):
        seen = set()
        for arg in args:
            # of several plain types in one place one is enough: the value is the same text
            for found in _places(arg, place) if arg is not type(None) else ():
                if found not in seen:
                    seen.add(found)
                    yield found
    elif origin in (list, tuple):
        yield from _places(args[0], (*place, Step(None, ITEM)))
    elif origin is dict:
        # JSON of any kind takes text
        value = "x" if args[1] is Any else _first(args[1])
        yield (*place, Step(None, KEY, value))
        yield from _places(args[1], (*place, Step(None, VALUE, next(_choices(args[0]), "X"))))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from places_in(annotation, place)
    else:
        yield place


def filled(place: Place, value: Any) -> Any:
    """The smallest tree with `value` at `place`, with what its sections cannot be without."""
    if not place:
        return value
    step, *rest = place
    if step.key == ITEM:
        return [filled(tuple(rest), value)]
    if step.model is None:
        if step.key == KEY:
            return {value: step.beside}
        return {step.beside: filled(tuple(rest), value)}
    own = dict(required(step.model))
    if step.key == KEY:
        return {**own, value: "x"}
    return {**own, step.key: filled(tuple(rest), value)}


@cache
def required(model: type[BaseModel]) -> tuple[tuple[str, Any], ...]:
    """What a section cannot be without, harmless."""
    return tuple(
        (field.alias or name, _harmless(field))
        for name, field in model.model_fields.items()
        if field.is_required()
    )


def _harmless(field: FieldInfo) -> Any:
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return dict(required(annotation))
    kind = Annotated[(annotation, *field.metadata)] if field.metadata else annotation
    return _first(kind, candidates(field))


def _first(kind: Any, tried: Iterable[Any] = HARMLESS) -> Any:
    """The first value that a type takes."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    for value in tried:
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError:
            continue
        return value
    raise AssertionError(f"no harmless value known for {kind}: add one to HARMLESS")


def candidates(field: FieldInfo) -> Iterator[Any]:
    """Values to try."""
    yield from _choices(field.annotation)
    yield from HARMLESS
    inner = get_args(field.annotation)
    for arg in inner:
        if isinstance(arg, type) and issubclass(arg, BaseModel):
            yield [dict(required(arg))]
        for model in get_args(arg):
            for one in (model, *get_args(model)):
                if isinstance(one, type) and issubclass(one, BaseModel):
                    yield [{**dict(required(one)), "path": "/data/x"}]
                    break


def _choices(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    for arg in get_args(annotation):
        yield from _choices(arg)


def choices_at(place: Place) -> list[Any]:
    """Words that a place takes, where they are fixed."""
    for step in reversed(place):
        if step.model is not None:
            for name, field in step.model.model_fields.items():
                if (field.alias or name) == step.key:
                    return list(_choices(field.annotation))
            return []
    return []
