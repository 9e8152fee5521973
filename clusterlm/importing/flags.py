"""A training script's options put into the draft, by the tables of `training_flags.py`."""

from __future__ import annotations

import json
from typing import Any

from clusterlm.importing.arguments import options_of, scalar, value_of
from clusterlm.importing.draft import FILL_IN, Draft
from clusterlm.importing.shell import absence_of, readable, unset_in
from clusterlm.importing.special_flags import Given, read_special
from clusterlm.importing.training_flags import (
    DATA,
    DROPPED,
    LISTS,
    MOVED,
    OTHER_COMMANDS,
    PLACEHOLDERS,
    SPECIAL,
    SWITCHES,
    UNCLEAR,
)
from clusterlm.spec import old_names
from clusterlm.spec.training_arguments import ANY, FREE, GONE, OWNED, TEXT
from clusterlm.spec.variables import holds_secret

SAME = (
    *("learning_rate", "weight_decay", "max_grad_norm", "logging_steps", "save_steps"),
    *("eval_steps", "eval_on_start", "epochs"),
)
"""Keys of `train` that are options of the same name."""
TRAINING = {*SAME, *FREE, *OWNED, *GONE, *old_names.TRAIN}
KNOWN = {*MOVED, *DATA, *SWITCHES, *DROPPED, *OTHER_COMMANDS, *UNCLEAR, *SPECIAL, *TRAINING}
"""Every option that has a row somewhere."""

PATHS = ("model.name", "data.tokenizer.name")
OVERRULED = {
    "save_strategy": "a run saves every save_steps, so that it can resume",
    "logging_strategy": "metrics.jsonl has a line every logging_steps",
    "load_best_model_at_end": "the newest whole checkpoint becomes the model",
}
"""Where a job does something else than was asked, and may all the same."""


def given_options(argv: list[str], draft: Draft) -> Given:
    """Options of a script by their whole names; argparse takes a beginning for the whole."""
    given: Given = {}
    for name, values, written in options_of(argv):
        if not name:
            is_json = written.endswith(".json")
            why = "holds arguments: write them as options" if is_json else "belongs to no option"
            draft.note(written, f"{why}, left out")
            continue
        full = _whole_name(name)
        if full not in SPECIAL and holds_secret(full, " ".join(values)):
            values, written = [], f"--{name} ***"
        if full in given:
            # argparse takes the last one
            draft.note(given[full][1], f"is said twice; the last counts: {written}")
        given[full] = (values, written)
    return given


ELIDED = "..."


def read_flags(given: Given, draft: Draft) -> None:
    """Put every option but those of the data into the draft."""
    before = {"train": {name: value_of(values) for name, (values, _) in given.items()}}
    if "validation_file" in given or "eval_data_path" in given:
        before["data"] = {"validation": {"fraction": 0.1}}
    if elided := [name for name, (values, _) in given.items() if ELIDED in values]:
        draft.note(
            ELIDED,
            "stands for options that were left out; what is written here as a default may be "
            "something else there: give the whole command",
        )
        for name in elided:
            values, written = given[name]
            words = [value for value in values if value != ELIDED]
            given[name] = (words, written.replace(ELIDED, "").rstrip())
    for name, (values, written) in given.items():
        if name in DATA:
            continue
        if name in SPECIAL:
            read_special(name, values, written, draft)
        elif name in MOVED:
            _move(MOVED[name], values, written, draft)
        elif name in SWITCHES:
            _switch(name, values, written, draft)
        elif name in DROPPED or name in OTHER_COMMANDS:
            draft.drop(written, DROPPED.get(name) or OTHER_COMMANDS[name])
        elif name in UNCLEAR:
            draft.note(written, UNCLEAR[name])
        elif name in TRAINING:
            _train(name, values, written, before, draft)
        else:
            draft.note(written, "is unclear, left out")


def _whole_name(name: str) -> str:
    if name in KNOWN:
        return name
    longer = [one for one in KNOWN if one.startswith(name) and len(name) > 3]
    return longer[0] if len(longer) == 1 else name


def _move(place: str, values: list[str], written: str, draft: Draft) -> None:
    text = " ".join(values)
    if unset_in(text):
        _ask(place, text, draft)
        return
    value = value_of(values)
    if place in LISTS:
        names = [name for value in values for name in value.split(",") if name]
        value = None if value is None else names
    elif place in PATHS or place == "model.revision":
        value = text
    if value is None or (place, value) in (("model.revision", "main"),):
        draft.drop(written, "is the default")
    else:
        draft.put(place, value, written)


def _ask(place: str, text: str, draft: Draft) -> None:
    value = FILL_IN if place in PATHS else PLACEHOLDERS.get(place)
    if value is None:
        draft.note(readable(text), f"{absence_of(text)}; write {place}")
    else:
        draft.ask(place, value, absence_of(text))


def _switch(name: str, values: list[str], written: str, draft: Draft) -> None:
    if scalar(values[0] if values else "True") is True:
        for place, value in SWITCHES[name].items():
            draft.put(place, value, written)
    else:
        draft.drop(written, "is off")


def _train(name: str, values: list[str], written: str, before: Any, draft: Draft) -> None:
    """An option of TrainingArguments, of whatever age."""
    value = _typed(name, values)
    read = old_names.TRAIN.get(name)
    if unset_in(" ".join(values)):
        sets = read(1, before) if read else {f"train.{name}": 1}
        place = next(iter(sets), "train") if isinstance(sets, dict) else "train"
        _ask(place, " ".join(values), draft)
        return
    try:
        meaning = read(value, before) if read else None
    except ValueError as error:
        draft.note(written, str(error))
        return
    if isinstance(meaning, str):
        draft.drop(written, meaning)
    elif meaning is not None:
        for place, new in meaning.items():
            draft.put(place, new, written)
    elif name in OVERRULED:
        draft.drop(written, OVERRULED[name])
    elif name in OWNED or name in GONE:
        draft.drop(written, OWNED.get(name) or GONE[name])
    elif value is None:
        draft.drop(written, "is the default")
    else:
        draft.put(f"train.{name}", value, written)


def _typed(name: str, values: list[str]) -> Any:
    if name == "fsdp":
        return " ".join(values)
    if FREE.get(name) not in (TEXT, ANY) or not values:
        return value_of(values)
    if values[0].startswith(("{", "[")):
        try:
            return json.loads(" ".join(values))
        except (ValueError, RecursionError):
            return " ".join(values)
    return values[0] if len(values) == 1 else values
