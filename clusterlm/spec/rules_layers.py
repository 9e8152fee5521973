"""Rules about the layers that a job names: the model has them; collected in `rules.py`.

The training refuses the same, with the model in memory (`train/adapter.py`, `train/trainable.py`);
here it is found without torch, from the names in the model's files. Where these cannot tell (a hub
id, a class of the user's own, a family whose files have other names), nothing is said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase

from clusterlm.errors import Problem
from clusterlm.spec.job import Job
from clusterlm.spec.model import Adapter
from clusterlm.spec.weight_names import (
    HEAD,
    PREFIXES,
    DamagedError,
    Shapes,
    has_same_names,
    read_weight_names,
)
from clusterlm.spec.wording import did_you_mean, shown


def weights_are_whole(job: Job) -> Iterator[Problem]:
    """A file that was cut off when it was copied is found before the job waits."""
    folder = _folder(job)
    try:
        if folder:
            read_weight_names(folder)
    except DamagedError as error:
        yield Problem("model.name", f"{shown(folder)}: {error}")


def adapter_names_layers(job: Job) -> Iterator[Problem]:
    """Names that peft would look for in vain, or would refuse."""
    adapter = job.model.adapter if job.model else None
    weights = _weights(job)
    if adapter is None or adapter.continue_from is not None or weights is None:
        return
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        asked = getattr(adapter, key)
        # low-rank matrices go beside a matrix, never beside a whole block
        is_target = key == "target_modules"
        layers = _matrices(weights) if is_target else _layers(weights)
        for name in [] if isinstance(asked, str) else asked:
            if not any(_ends_with(layer, name) for layer in layers):
                kind = "layer with a matrix" if is_target else "layer"
                message = f"no {kind} is named {shown(name)}; {_near(name, _matrices(weights))}"
                yield Problem(f"model.adapter.{key}", message)
    yield from _patterns(adapter, weights)


def trainable_names_parameters(job: Job) -> Iterator[Problem]:
    """A pattern that names nothing would leave the layer meant as it is."""
    weights = _weights(job)
    if weights is None or job.train.mode != "partial":
        return
    names = [*weights, f"{HEAD}.weight"]
    names += [f"{prefix}{name}" for prefix in PREFIXES for name in weights]
    for pattern in job.train.trainable:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = did_you_mean(pattern.replace("*", ""), list(weights)[:50])
            guess = near if near.startswith("did") else f"names are such as {_example(weights)}"
            yield Problem("train.trainable", f"{shown(pattern)} names no parameter; {guess}")


def _patterns(adapter: Adapter, weights: Shapes) -> Iterator[Problem]:
    targets = adapter.target_modules
    names = [
        name
        for name in _matrices(weights)
        if isinstance(targets, str) or any(_ends_with(name, target) for target in targets)
    ]
    names += [f"{prefix}{name}" for prefix in PREFIXES for name in names]
    for key in ("rank_pattern", "alpha_pattern"):
        asked = getattr(adapter, key)
        for pattern in asked if isinstance(asked, dict) and names else ():
            if not _matches(pattern, names):
                message = f"{shown(pattern)} is no layer that gets an adapter; {_near('', names)}"
                yield Problem(f"model.adapter.{key}", message)


def _matches(pattern: str, names: Iterable[str]) -> bool:
    try:
        # as peft matches them
        compiled = re.compile(rf"(.*\.)?({pattern})$")
    except re.error:
        return True  # another rule says so
    return any(compiled.match(name) for name in names)


def _folder(job: Job) -> str | None:
    model = job.model
    if model is None or model.name is None or job.train.command is not None:
        return None
    return model.name if os.path.isabs(model.name) and os.path.isdir(model.name) else None


def _weights(job: Job) -> Shapes | None:
    """The weights of a model whose files name them as the model in memory does."""
    folder = _folder(job)
    if folder is None or job.model is None or job.model.class_ or not has_same_names(folder):
        return None
    try:
        return read_weight_names(folder)
    except DamagedError:
        return None


def _layers(weights: Shapes) -> set[str]:
    """Every module that holds a weight, and those around it: model, model.layers, ..."""
    found = {HEAD}
    for name in weights:
        parts = name.split(".")[:-1]
        found |= {".".join(parts[: number + 1]) for number in range(len(parts))}
    return found


def _matrices(weights: Shapes) -> list[str]:
    """Layers with a matrix: linear ones, and embeddings."""
    names = [name.removesuffix(".weight") for name, shape in weights.items() if len(shape) == 2]
    return [*names, HEAD]


def _ends_with(layer: str, asked: str) -> bool:
    # a file of the base alone leaves the first part of the names out
    return f".{layer}".endswith(f".{asked}") or any(
        asked.startswith(prefix) and f".{layer}".endswith(f".{asked.removeprefix(prefix)}")
        for prefix in PREFIXES
    )


def _near(name: str, layers: Iterable[str]) -> str:
    last = sorted({layer.rpartition(".")[2] for layer in layers})
    guess = did_you_mean(name, last) if name else ""
    return guess if guess.startswith("did") else f"layers here: {', '.join(last)}"


def _example(weights: Shapes) -> str:
    return next((name for name in weights if ".0." in name), next(iter(weights), "none"))


RULES: tuple[tuple[Callable[[Job], Iterator[Problem]], tuple[str, ...]], ...] = (
    (weights_are_whole, ("model", "train")),
    (adapter_names_layers, ("model", "train")),
    (trainable_names_parameters, ("model", "train")),
)
