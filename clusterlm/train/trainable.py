"""Which weights are trained, where it is not all of them and not an adapter.

    full         every weight
    embeddings   the input embedding and what turns the last layer into logits; all between, also
                 the last norm, stays as it is. Tied, they are one matrix and trained as one.
    partial      the parameters that a pattern of train.trainable names (* and ? as in a shell)

A pattern that names nothing is an error: the training would run and the layer meant would stay.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from clusterlm.errors import TrainError


@dataclass(frozen=True)
class Trainable:
    """What is trained of a model.

    Attributes:
        names: of the trained parameters; of tied ones the first.
        num_trained: numbers in them.
        num_frozen: numbers in all others.
        words: one line for the log.
    """

    names: tuple[str, ...]
    num_trained: int
    num_frozen: int
    words: str


def choose_trainable(model: Any, mode: str, patterns: Sequence[str] = ()) -> Trainable:
    """Freeze what the mode leaves as it is, and say what is trained.

    Args:
        model: changed in place.
        mode: train.mode; an adapter has frozen the others before.
        patterns: train.trainable.

    Raises:
        TrainError: a pattern names no parameter, or the model has no input embedding.
    """
    if mode in ("embeddings", "partial"):
        chosen = _embeddings(model) if mode == "embeddings" else _matching(model, patterns)
        model.requires_grad_(False)
        for parameter in chosen:
            parameter.requires_grad_(True)
    return describe(model, mode)


def describe(model: Any, mode: str) -> Trainable:
    """What of a model is trained as it stands."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    num_trained = sum(map(num_elements, trained.values()))
    num_all = sum(num_elements(parameter) for parameter in model.parameters())
    share = 100 * num_trained / max(num_all, 1)
    words = f"mode {mode}: {num_trained:,} of {num_all:,} weights are trained ({share:.3g} %)"
    if mode in ("embeddings", "partial"):
        words += f": {_listed(model, trained)}; all others are frozen"
    return Trainable(tuple(trained), num_trained, num_all - num_trained, words)


def num_elements(parameter: Any) -> int:
    """Numbers in a parameter, also in one that ZeRO-3 has split and left empty."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _embeddings(model: Any) -> list[Any]:
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    found = [parameter for layer in layers if layer is not None for parameter in layer.parameters()]
    if not found:
        raise TrainError(
            f"train.mode: embeddings, but {type(model).__name__} does not tell where its embedding "
            "is; write mode: partial and name it in train.trainable"
        )
    return found


def _matching(model: Any, patterns: Sequence[str]) -> list[Any]:
    # tied weights have two names, and both are names that one may write
    named = dict(model.named_parameters(remove_duplicate=False))
    problems = [
        f"{pattern} names no parameter; the nearest: {', '.join(_nearest(pattern, list(named)))}"
        for pattern in patterns
        if not any(fnmatchcase(name, pattern) for name in named)
    ]
    if problems or not patterns:
        raise TrainError(f"train.trainable: {'; '.join(problems) or 'is empty'}")
    return [
        parameter
        for name, parameter in named.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    ]


def _nearest(pattern: str, names: list[str]) -> list[str]:
    return difflib.get_close_matches(pattern.replace("*", ""), names, n=3, cutoff=0.0)


def _listed(model: Any, trained: dict[str, Any]) -> str:
    """The names, the tied ones of each behind it; of many the first and the last."""
    twins: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        twins.setdefault(id(parameter), []).append(name)
    shown = []
    for name, parameter in trained.items():
        others = [twin for twin in twins[id(parameter)] if twin != name]
        shown.append(f"{name} (tied: it is {' and '.join(others)} too)" if others else name)
    if len(shown) > 6:
        shown = [*shown[:3], f"{len(shown) - 5} more", *shown[-2:]]
    return ", ".join(shown)
