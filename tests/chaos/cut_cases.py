"""What is to befall each submit of `cut_submit.py`, what came of it, and the table."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.far import BACKENDS

KINDS = ("bytes", "moment", "stall", "refuse", "forget")
# a connection that hears nothing is given up after a while: such cases are long
WEIGHTS = (30, 30, 20, 17, 3)
STAGES = ("nothing yet", "key written", "run folder made", "sbatch called", "job noted")
WHOLE_S = 8.0
"""About what an undisturbed submit takes on a busy machine."""
SENT_BYTES = 30_000


@dataclass
class Break:
    """One fault of the line. `size`: bytes of `bytes`, else how many seconds it lasts."""

    kind: str
    pause_s: float
    size: float


@dataclass
class Case:
    """One submit, what befell it, and what was there in the end."""

    name: str
    backend: str
    after: str
    breaks: list[Break]
    kill_s: float | None = None
    """Seconds from the last break to the kill of the laptop's process."""
    reached: str = ""
    """How far it had come at the first break."""
    num_asked: int = 1
    """How often the command was typed."""
    said: list[str] = field(default_factory=list)
    """By those that failed, though nobody killed them."""
    truth_s: float = 0.0
    answer: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def way(self) -> str:
        """For the table: the gravest break."""
        return max((one.kind for one in self.breaks), key=KINDS.index)


def plan(count: int, seed: int, weights: Sequence[int] = WEIGHTS) -> list[Case]:
    """What is to befall each submit."""
    dice = random.Random(seed)
    cases = []
    for i in range(count):
        after, breaks = STAGES[i // 2 % len(STAGES)], []
        for number in range(dice.choice((1, 1, 2, 3))):
            [kind] = dice.choices(KINDS, weights)
            size = dice.uniform(1, 6)
            if kind == "bytes":
                size = dice.choice((dice.uniform(0, 2000), dice.uniform(0, 2 * SENT_BYTES)))
            longest_s = 3 if number else WHOLE_S if after == STAGES[0] else 0.5
            breaks.append(Break(kind, dice.uniform(0, longest_s), size))
        kill_s = dice.uniform(0, 3) if i % 3 == 2 else None
        cases.append(Case(f"cut-{i}", BACKENDS[i % 2], after, breaks, kill_s))
    return cases


def table(cases: list[Case]) -> str:
    """How far they had come at the first break, by the gravest one, and how long it took."""
    lines = [f"{'first break when it had':<32}" + "".join(f"{kind:>10}" for kind in KINDS)]
    counts = Counter((case.reached, case.way) for case in cases)
    for stage in STAGES:
        cells = "".join(f"{counts[stage, kind]:>10}" for kind in KINDS)
        lines.append(f"  {stage:<30}{cells}")
    lines.append(
        f"{'truth known after, s':<32}{'cases':>10}{'p50':>8}{'p95':>8}{'max':>8}{'again':>8}"
    )
    for backend in BACKENDS:
        for kind in KINDS:
            lines += _percentiles(
                f"{backend}, {kind}", [c for c in cases if (c.backend, c.way) == (backend, kind)]
            )
        lines += _percentiles(
            f"{backend}, killed too", [c for c in cases if c.backend == backend and c.kill_s]
        )
    lines += _percentiles("all", cases)
    good = sum(not case.faults for case in cases)
    lines.append(f"exactly one training, the right id, known in time: {good} of {len(cases)}")
    lines += [
        f"  {c.name} {c.backend} {_told(c)}: {'; '.join(c.faults)}" for c in cases if c.faults
    ]
    lines += [f"  {c.name} {c.backend} {_told(c)} said: {text}" for c in cases for text in c.said]
    return "\n".join(lines)


def _percentiles(what: str, cases: list[Case]) -> list[str]:
    if not cases:
        return []
    times = sorted(case.truth_s for case in cases)
    p50, p95 = (times[int(share * (len(times) - 1))] for share in (0.5, 0.95))
    # typed once more, though no kill made it necessary
    again = sum(case.num_asked > (1 if case.kill_s is None else 2) for case in cases)
    return [f"  {what:<30}{len(cases):>10}{p50:>8.1f}{p95:>8.1f}{times[-1]:>8.1f}{again:>8}"]


def _told(case: Case) -> str:
    breaks = ", ".join(f"{one.kind} {one.size:.0f}" for one in case.breaks)
    killed = ", killed" if case.kill_s is not None else ""
    return f"({case.reached}: {breaks}{killed})"
