"""Which engine tokenizes: the fastest that is installed and gives the ids of `tokenizers`.

Every candidate is tried on a sample of the user's texts and on difficult ones (`engine_trial.py`).
Ids that differ anywhere rule it out, whatever its speed. Of the rest, the one that is through
soonest wins, its loading counted. That takes some 2 s, so where `tokenizers` alone would not need
much longer, there is no trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clusterlm.data.engine_trial import Trial, Trials, run_trials
from clusterlm.data.engines import FAST, TokenizersEngine, is_installed
from clusterlm.errors import DataError

SMALL_BYTES = 10_000_000
"""Of text a worker: up to this, a trial takes about as long as it saves."""

INSTALL = "pip install 'clusterlm[fast]'"

_REFERENCE = TokenizersEngine.name
_SHOWN_CHARS = 40
_SHOWN_IDS = 6


@dataclass(frozen=True)
class Choice:
    """The engine to use, and what to tell about how it was found."""

    name: str
    lines: tuple[str, ...] = ()


def choose_engine(
    asked: str,
    tokenizer_json: Path,
    sample: Sequence[str],
    *,
    total_bytes: int | None = None,
    workers: int = 1,
) -> Choice:
    """Find the engine for `data.engine`.

    Args:
        asked: `auto` or the name of an engine.
        tokenizer_json: what all of them load.
        sample: some of the user's texts, the longest among them; 1 MB is enough.
        total_bytes: of all the text, as far as it is known.
        workers: how many processes share it.

    Raises:
        DataError: the engine that is asked for is not installed, or gives other ids.
    """
    if asked == _REFERENCE:
        return Choice(asked)
    if asked != "auto":
        return _named(asked, tokenizer_json, sample)
    each = None if total_bytes is None else total_bytes / max(1, workers)
    if each is not None and each <= SMALL_BYTES:
        return Choice(_REFERENCE)
    names = [name for name in FAST if is_installed(name)]
    if not names:
        return Choice(_REFERENCE, (f"tokenizing some 30 times as fast: {INSTALL}",))
    trials = run_trials(names, tokenizer_json, sample)
    reasons = {name: _why_not(trial, trials) for name, trial in trials.found.items()}
    dropped = [f"{name} {reason}; it is not used" for name, reason in reasons.items() if reason]
    able = {name: trials.found[name] for name, reason in reasons.items() if not reason}
    return _fastest({_REFERENCE: trials.right, **able}, each, dropped)


def _named(asked: str, tokenizer_json: Path, sample: Sequence[str]) -> Choice:
    if not is_installed(asked):
        raise DataError(f"data.engine: {asked} is not installed; {INSTALL}, or write auto")
    trials = run_trials([asked], tokenizer_json, sample)
    reason = _why_not(trials.found[asked], trials)
    if reason:
        raise DataError(f"data.engine: {asked} {reason}; write auto")
    return Choice(asked)


def _fastest(able: dict[str, Trial], each: float | None, lines: list[str]) -> Choice:
    # unknown: so much that loading does not matter
    size = 1e10 if each is None else each
    name = min(able, key=lambda name: able[name].load_s + size / able[name].bytes_per_s)
    speeds = ", ".join(f"{name} {trial.bytes_per_s / 1e6:.0f}" for name, trial in able.items())
    return Choice(name, (*lines, f"tokenizing with {name} (MB/s a worker on a trial: {speeds})"))


def _why_not(trial: Trial, trials: Trials) -> str | None:
    """Why an engine is not to be used; None when all its ids are right."""
    if trial.failure:
        return trial.failure
    groups = zip(trials.texts, trials.right.encoded, trial.encoded, strict=True)
    for texts, (right_ids, right_ends), (ids, ends) in groups:
        if np.array_equal(right_ids, ids) and np.array_equal(right_ends, ends):
            continue
        for number, text in enumerate(texts):
            want = right_ids[slice(*_bounds(right_ends, number))]
            have = ids[slice(*_bounds(ends, number))]
            if not np.array_equal(want, have):
                return _difference(text, want.tolist(), have.tolist())
    return None


def _bounds(ends: np.ndarray, number: int) -> tuple[int, int]:
    return (int(ends[number - 1]) if number else 0), int(ends[number])


def _difference(text: str, want: list[int], have: list[int]) -> str:
    pairs = zip(want, have, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(want), len(have)))
    shown = repr(text[:_SHOWN_CHARS]) + ("..." if len(text) > _SHOWN_CHARS else "")
    part = slice(first, first + _SHOWN_IDS)
    return (
        f"gives other ids than {_REFERENCE} for {shown}:"
        f" {have[part]} and not {want[part]}, from token {first}"
    )
