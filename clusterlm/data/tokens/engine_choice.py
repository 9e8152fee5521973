"""Which engine tokenizes: the fastest that is installed and gives the ids of `tokenizers`.

On much text, every candidate is tried on a sample of it and on difficult texts
(`engine_trial.py`). Ids that differ anywhere rule it out, whatever its speed; of the rest, the one
that is through soonest wins, its loading counted. On less text the order is fixed. Either way the
one that is taken has to pass the gate before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clusterlm.data.tokens.engine_gate import bounds, difference_in_words
from clusterlm.data.tokens.engine_trial import Trial, Trials, run_trials
from clusterlm.data.tokens.engines import FAST, TokenizersEngine, is_installed
from clusterlm.errors import DataError

SMALL_BYTES = 6_000_000
"""Of text a worker: up to this, loading a fast engine takes about as long as it saves."""
TRIAL_PAYS_BYTES = 1_000_000_000
"""Of text a worker: from here on, the better of two fast engines saves more than the two seconds of
a trial. Below, the one that is mostly better is taken."""

INSTALL = "pip install 'clusterlm[fast]'"

_REFERENCE = TokenizersEngine.name


@dataclass(frozen=True)
class Choice:
    """The engines to use, best first, and what to tell about how they were found.

    The next one is used when one does not pass the gate (`engine_gate.py`).
    """

    names: tuple[str, ...]
    lines: tuple[str, ...] = ()


def choose_engine(
    asked: str,
    tokenizer_json: Path,
    sample: Sequence[str],
    *,
    total_bytes: int,
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
        DataError: the engine that is asked for is not installed.
    """
    if asked != "auto":
        if not is_installed(asked):
            raise DataError(f"data.engine: {asked} is not installed; {INSTALL}, or write auto")
        return Choice((asked,))
    each = total_bytes / max(1, workers)
    names = tuple(name for name in FAST if is_installed(name))
    if each <= SMALL_BYTES:
        return Choice((_REFERENCE,))
    if not names:
        return Choice((_REFERENCE,), (f"tokenizing some 30 times as fast: {INSTALL}",))
    if each < TRIAL_PAYS_BYTES or len(names) == 1:
        return Choice((*names, _REFERENCE))
    trials = run_trials(names, tokenizer_json, sample)
    reasons = {name: _why_not(trial, trials) for name, trial in trials.found.items()}
    dropped = [f"{name} {reason}; it is not used" for name, reason in reasons.items() if reason]
    able = {name: trials.found[name] for name, reason in reasons.items() if not reason}
    return _fastest({_REFERENCE: trials.right, **able}, each, dropped)


def _fastest(able: dict[str, Trial], each: float, lines: list[str]) -> Choice:
    names = sorted(able, key=lambda name: able[name].load_s + each / able[name].bytes_per_s)
    speeds = ", ".join(f"{name} {trial.bytes_per_s / 1e6:.0f}" for name, trial in able.items())
    return Choice(tuple(names), (*lines, f"engines on a trial, MB/s a worker: {speeds}"))


def _why_not(trial: Trial, trials: Trials) -> str | None:
    """Why an engine is not to be used; None when all its ids are right."""
    if trial.failure:
        return trial.failure
    groups = zip(trials.texts, trials.right.encoded, trial.encoded, strict=True)
    for texts, (right_ids, right_ends), (ids, ends) in groups:
        if np.array_equal(right_ids, ids) and np.array_equal(right_ends, ends):
            continue
        for number, text in enumerate(texts):
            want = right_ids[slice(*bounds(right_ends, number))]
            have = ids[slice(*bounds(ends, number))]
            if not np.array_equal(want, have):
                return difference_in_words(text, want.tolist(), have.tolist())
    return None
