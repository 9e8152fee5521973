"""pydantic's errors as problems in our own words: what was found, what is accepted.

pydantic puts the branches of a union into the place of an error ("train", "deepspeed", "DeepSpeed",
"stage") and reports every branch that did not fit. Here the place is followed along the types of
the sections: such marks drop out, and only the branch that was meant is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from clusterlm.errors import Problem
from clusterlm.spec.base import GRAMMARS, Spec
from clusterlm.spec.place import Place, dotted
from clusterlm.spec.wording import did_you_mean, shown, times

HINTS = {
    "train.deepspeed": "write {stage: 2}, or the path of a DeepSpeed JSON",
    "recovery.hang_after": "write auto, or a duration such as 30m",
    "model.adapter.target_modules": "write all-linear, or a list of layer names",
    "image.build_secrets": "write names of environment variables, [PIP_INDEX_URL], not values",
    "secrets": "write names of environment variables, [HF_TOKEN]; values never stand in this file",
}
"""What to write, where one sentence says it better than the types do."""

_FIELD_VALUES = re.compile(r"data\.(validation\.)?sources\[\d+\]\.where(_not)?\..+", re.DOTALL)
_ONE_FIELD_VALUE = "write a text, a number, true, false or null, or a list of these"

PRIVATE: tuple[Place, ...] = (("secrets",), ("env",), ("image", "env"), ("image", "build_secrets"))
"""What is found there is never shown: it may be a secret, written where its name belongs."""

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "list_type": "a list",
    "dict_type": "a mapping of keys and values",
    "model_type": "a mapping of keys and values",
    "model_attributes_type": "a mapping of keys and values",
}
_LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_Error = Mapping[str, Any]


def problems_of(errors: Iterable[_Error], root: type[Spec]) -> list[Problem]:
    """A problem for each mistake, in the order of pydantic.

    Args:
        errors: what `ValidationError.errors()` gives.
        root: the section that was validated.
    """
    found: dict[Problem, None] = {}
    for error in errors:
        trail = _follow(error, root)
        if trail is not None:
            place, holder = trail
            found[_problem(error, place, holder, root)] = None
    return list(found)


def _follow(error: _Error, root: type[Spec]) -> tuple[Place, Any] | None:
    """The place without pydantic's marks, and the type that the last key belongs to.

    None when the error is of a branch of a union that was not meant.
    """
    place: list[str | int] = []
    holder: Any = root
    annotation: Any = root
    for number, part in enumerate(error["loc"], start=1):
        branches = _branches(annotation)
        if len(branches) > 1:
            annotation = _branch_of_mark(branches, str(part))
            is_last = number == len(error["loc"])
            if is_last and not _is_meant(annotation, branches, error["input"]):
                return None
        elif part != "[key]":
            place.append(part)
            holder = branches[0]
            annotation = _type_at(holder, part)
    return tuple(place), holder


def _branches(annotation: Any) -> list[Any]:
    """The members of a union without None; of anything else, itself."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        return [a for a in get_args(annotation) if a is not type(None)]
    return [annotation]


def _branch_of_mark(branches: list[Any], mark: str) -> Any:
    # the mark is a class's name, the kind of a source, "list[...]", or some scalar's description
    for branch in branches:
        if _is_section(branch):
            kind = branch.model_fields.get("kind")
            if mark == branch.__name__ or (kind and mark in get_args(kind.annotation)):
                return branch
        elif get_origin(branch) is list and mark.startswith("list["):
            return branch
    return Literal


def _kinds(annotation: Any) -> list[str]:
    kinds = [branch.model_fields["kind"].annotation for branch in _branches(annotation)]
    return [word for kind in kinds for word in get_args(kind)]


def _is_meant(branch: Any, branches: list[Any], value: object) -> bool:
    if isinstance(value, dict) and any(map(_is_section, branches)):
        return _is_section(branch)
    if isinstance(value, list) and any(get_origin(b) is list for b in branches):
        return get_origin(branch) is list
    return True


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Spec)


def _type_at(holder: Any, part: str | int) -> Any:
    if not _is_section(holder):
        arguments = get_args(holder)
        return arguments[-1] if arguments else Any
    for name, info in holder.model_fields.items():
        if part in (name, info.alias):
            return info.annotation
    return Any


def _problem(error: _Error, place: Place, holder: Any, root: type[Spec]) -> Problem:
    kind, where = error["type"], dotted(place)
    context = error.get("ctx", {})
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        accepted = _kinds(_type_at(holder, place[-1]))
        message = "is missing; accepted: " + ", ".join(accepted)
        if kind == "union_tag_invalid":
            message = f"{shown(context['tag'])} is no kind; {_one_of(context['tag'], accepted)}"
        return Problem(f"{where}.kind", message)
    if kind == "extra_forbidden":
        return Problem(where, "unknown key; " + _where_it_belongs(str(place[-1]), holder, root))
    if kind == "missing":
        return Problem(where, "is missing")
    if any(place[: len(private)] == private for private in PRIVATE):
        return Problem(where, _private_message(error, where))
    found = "is empty" if error["input"] is None else f"found {shown(error['input'])}"
    hint = _ONE_FIELD_VALUE if _FIELD_VALUES.fullmatch(where) else HINTS.get(where)
    if hint:
        # one mistake, however many types it did not fit
        return Problem(where, f"{found}; {hint}")
    return Problem(where, _message(kind, context, error, found))


def _message(kind: str, context: Mapping[str, Any], error: _Error, found: str) -> str:
    value = error["input"]
    if kind == "value_error":  # ours, from units.py: says what was found
        return str(context["error"]) if value is not None else "is empty; give a value or leave out"
    if kind == "string_pattern_mismatch":
        return f"{found}; accepted: {GRAMMARS.get(context['pattern'], context['pattern'])}"
    if kind == "string_too_long":
        return f"has {len(value)} characters; at most {context['max_length']}"
    if kind == "too_short":
        return f"{found} of {times(len(value), 'item')}; at least {context['min_length']}"
    if kind == "literal_error":
        accepted = re.findall(r"[^', ]+", context["expected"].replace(" or ", ", "))
        return f"{found}; {_one_of(str(value), accepted)}"
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"{found}; {words} {context[key]}"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f"{found}, which is no text; put it in quotes"
    return f"{found}; write {_WANTED.get(kind, error['msg'])}"


def _private_message(error: _Error, where: str) -> str:
    if where in HINTS:
        return HINTS[where]
    pattern = error.get("ctx", {}).get("pattern")
    return "accepted: " + GRAMMARS.get(pattern, "one line of text")


def _one_of(word: str, accepted: list[str]) -> str:
    listed = "accepted: " + ", ".join(accepted)
    nearest = did_you_mean(word, accepted)
    return listed if nearest == listed else f"{nearest} ({listed})"


def _where_it_belongs(key: str, holder: Any, root: type[Spec]) -> str:
    accepted = [info.alias or name for name, info in holder.model_fields.items()]
    guess = did_you_mean(key, accepted)
    if guess.startswith("did"):
        return guess
    for name, info in root.model_fields.items():
        section = _branches(info.annotation)[0]
        if _is_section(section) and section is not holder and key in section.model_fields:
            return f"it belongs under `{name}`"
    return guess
