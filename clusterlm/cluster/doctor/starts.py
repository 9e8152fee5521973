"""When would a job start, and what would start sooner.

Asked sparingly: each question to sbatch uses up a job id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clusterlm.cluster.doctor.backfill import FOR_EVER, Gap, smaller_that_starts
from clusterlm.cluster.doctor.estimate import Estimate, would_start
from clusterlm.cluster.doctor.finding import Finding, bad, note, warn
from clusterlm.cluster.doctor.words_of_slurm import written
from clusterlm.cluster.host import Host
from clusterlm.spec.resources import Resources
from clusterlm.spec.units import spoken

MOST_QUESTIONS = 8
LONG_S = 600.0
"""Waiting longer than that, people look for something smaller."""


@dataclass
class Questions:
    """sbatch, asked at most so often.

    Attributes:
        host: where it is.
        script: the submission file of the training.
        left: how many more questions.
    """

    host: Host
    script: Path
    left: int = MOST_QUESTIONS
    _known: dict[tuple[int, int], Estimate] = field(default_factory=dict)

    def ask(self, nodes: int, time_s: int) -> Estimate | None:
        """When that size would start; None when there were questions enough."""
        if (nodes, time_s) not in self._known:
            if self.left <= 0:
                return None
            self.left -= 1
            options = [f"--nodes={nodes}", f"--time={written(time_s)}"]
            self._known[nodes, time_s] = would_start(self.host, options, str(self.script))
        return self._known[nodes, time_s]


def findings_on_start(
    questions: Questions, asked: Resources, gap: Gap, now: Callable[[], float]
) -> Iterator[Finding]:
    """When it would start, and what would start now in its place."""
    nodes = asked.nodes + asked.spares
    estimate = questions.ask(nodes, asked.time)
    assert estimate is not None
    if estimate.refusal:
        yield bad(f"sbatch refuses it: {estimate.refusal}")
        return
    wait_s = estimate.wait_s(now())
    fits = gap.for_nodes(nodes) >= asked.time
    if wait_s == 0.0 or fits:
        where = f" on {estimate.nodes}" if estimate.nodes and wait_s == 0.0 else ""
        yield note(f"it would start now{where}")
        return
    when = "not known" if wait_s is None else f"in about {spoken(wait_s)}"
    say = warn if wait_s is None or wait_s > LONG_S else note
    smaller = smaller_that_starts(gap, nodes, asked.time)
    advice = "; ".join(smaller) or "; ".join(_sooner(questions, nodes, asked.time, wait_s, now))
    if smaller and "time" in smaller[0]:
        advice += " (at the limit it saves, requeues and goes on)"
    yield say(f"start: {when}, as sbatch estimates without backfill", advice)


def _sooner(
    questions: Questions, nodes: int, time_s: int, wait_s: float | None, now: Callable[[], float]
) -> Iterator[str]:
    """Fewer nodes, when that helps; two questions at most."""
    for fewer in dict.fromkeys((nodes // 2, 1)):
        estimate = questions.ask(fewer, time_s) if 0 < fewer < nodes else None
        sooner = estimate.wait_s(now()) if estimate else None
        if sooner is not None and (wait_s is None or sooner < wait_s / 2):
            when = "now" if sooner == 0.0 else f"in {spoken(sooner)}"
            yield f"with resources.nodes: {fewer} {when}"
            return


def table_of_starts(
    questions: Questions, asked: Resources, gap: Gap, now: Callable[[], float]
) -> list[tuple[str, ...]]:
    """Rows of nodes by times; the first holds the heads. A cell: now, in 2 h 10 min, ?."""
    nodes = asked.nodes + asked.spares
    times = [max(60, asked.time // part) for part in (1, 2, 4, 8)]
    times = list(dict.fromkeys(time_s // 60 * 60 for time_s in times))
    sizes = [n for n in dict.fromkeys((nodes, nodes // 2, 1)) if n > 0]
    table = [("NODES", *(written(time_s) for time_s in times))]
    for size in sizes:
        cells = []
        for time_s in times:
            fits = gap.for_nodes(size) >= time_s
            cells.append("now" if fits else _cell(questions.ask(size, time_s), now()))
        table.append((str(size), *cells))
    return table


def _cell(estimate: Estimate | None, now: float) -> str:
    if estimate is None:
        return "?"
    if estimate.refusal:
        return "refused"
    wait_s = estimate.wait_s(now)
    if wait_s is None or wait_s > FOR_EVER:
        return "?"
    return "now" if wait_s == 0.0 else f"in {spoken(wait_s)}"
