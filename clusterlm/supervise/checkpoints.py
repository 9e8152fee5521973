"""Which checkpoint an attempt goes on from, and whether the run advances.

Two questions with two costs: the rule of progress asks after every attempt and looks at sizes only;
a resume reads every byte, because a broken checkpoint that is resumed costs the whole run.
"""

from __future__ import annotations

from pathlib import Path

from clusterlm.node import seal
from clusterlm.node.manifest import MANIFEST


def newest_step(folder: Path, *, own_script: bool) -> int | None:
    """Step of the newest whole checkpoint, by presence and sizes.

    Args:
        folder: the run's checkpoints.
        own_script: the run trains with `train.command`, which need not seal what it saves.
    """
    sealed = seal.newest_step(folder)
    if sealed is None and own_script:
        return step_of(seal.newest_unsealed(folder))
    return sealed


def resume_from(folder: Path, *, own_script: bool) -> Path | None:
    """The newest checkpoint whose every byte verifies; broken ones are set aside and named."""
    survey = seal.newest_verified(folder)
    for broken in survey.rejected:
        if own_script and not (broken.path / MANIFEST).exists():
            continue
        print(f"{broken.path.name} is not whole and is set aside: {broken.reason}", flush=True)
        seal.quarantine(broken.path, broken.reason)
    if survey.newest is None and own_script:
        return seal.newest_unsealed(folder)
    return survey.newest


def step_of(path: Path | None) -> int | None:
    """`.../checkpoint-50` -> 50."""
    tail = path.name.rpartition("-")[2] if path else ""
    return int(tail) if tail.isdigit() else None
