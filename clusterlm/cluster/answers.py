"""The scheduler's answers, kept in one small file for all readers of this user.

    <runs_dir>/.scheduler.json     when it was asked, what it said, which jobs are wanted
    <runs_dir>/.scheduler.lock     held by the one that is asking now

So twenty watchers cost as much as one. The file is a memory and no record: lost, stale or broken it
costs one call. When the next call is due is decided here, from these values alone:

    it answers    10, 20, 40, 80, then every 150 s; at once 10 s when something has changed;
                  never more than 4 calls in 120 s or 30 in an hour
    it does not   every 25 s for ten minutes, then every 120 s; never more than 6 in 120 s
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

from clusterlm.node.files import read_json, write_json
from clusterlm.supervise.slurm_states import JobRow, Life

INTERVALS_S = (10.0, 20.0, 40.0, 80.0, 150.0)
OUTAGE_INTERVAL_S = 25.0
LONG_OUTAGE_S = 600.0
LONG_OUTAGE_INTERVAL_S = 120.0
WINDOW_S = 120.0
CALLS_IN_WINDOW = 4
CALLS_IN_WINDOW_OUTAGE = 6
CALLS_IN_WINDOW_FRESH = 12
"""For one-shot commands: a person waits, and may type it again."""
CALLS_IN_HOUR = 30
WANTED_FOR_S = 180.0
"""A watcher that has not said so for so long is gone; longer than the longest interval."""
WANT_AGAIN_S = 60.0
SETTLED_FOR_S = 600.0
"""The end of a job is not asked for again so soon; somebody may requeue it by hand, though."""


@dataclass(frozen=True)
class Answer:
    """What was said of one job. No rows: that source does not know it."""

    time: float
    source: str
    rows: tuple[JobRow, ...] = ()

    @property
    def is_settled(self) -> bool:
        """The job has ended: nothing new is to be expected."""
        return bool(self.rows) and self.rows[-1].life is Life.ENDED


@dataclass
class Answers:
    """Everything remembered. Times are unix seconds."""

    asked: float = 0.0
    calls: list[float] = field(default_factory=list)
    level: int = 0
    """Which of INTERVALS_S comes next."""
    failing_since: float | None = None
    trouble: str = ""
    """Why squeue did not answer last time; empty when it did."""
    sacct_asked: float = 0.0
    wanted: dict[str, float] = field(default_factory=dict)
    by_job: dict[str, Answer] = field(default_factory=dict)

    def is_due(self, jobs: Iterable[str], now: float, max_age_s: float | None) -> bool:
        """Whether to ask now. `max_age_s`: a one-shot reader wants answers no older than this."""
        open_jobs = [j for j in jobs if not self._is_settled(j, now)]
        if not open_jobs:
            return False
        ages = [now - self.by_job[j].time if j in self.by_job else None for j in open_jobs]
        if max_age_s is not None:
            stale = any(age is None or age > max_age_s for age in ages)
            return stale and self.may_call(now, fresh=True)
        waited = now - self.asked
        due = waited >= self.interval_s(now) or (None in ages and waited >= INTERVALS_S[0])
        return due and self.may_call(now)

    def may_call(self, now: float, *, fresh: bool = False) -> bool:
        """Whether the budget has room for one more call."""
        recent = sum(1 for t in self.calls if now - t < WINDOW_S)
        if fresh:
            return recent < CALLS_IN_WINDOW_FRESH
        if self.trouble:
            return recent < CALLS_IN_WINDOW_OUTAGE
        return recent < CALLS_IN_WINDOW and len(self.calls) < CALLS_IN_HOUR

    def interval_s(self, now: float) -> float:
        """The least time between two calls."""
        if self.failing_since is None:
            return INTERVALS_S[min(self.level, len(INTERVALS_S) - 1)]
        is_long = now - self.failing_since > LONG_OUTAGE_S
        return LONG_OUTAGE_INTERVAL_S if is_long else OUTAGE_INTERVAL_S

    def count_call(self, now: float) -> None:
        """Note a call that is about to be made."""
        self.calls = [t for t in self.calls if now - t < 3600.0] + [now]

    def must_be_told(self, jobs: Iterable[str], now: float) -> bool:
        """Whether the next reader that asks would not ask for these jobs."""
        return any(
            now - self.wanted.get(j, 0.0) > WANT_AGAIN_S and not self._is_settled(j, now)
            for j in jobs
        )

    def want(self, jobs: Iterable[str], now: float) -> list[str]:
        """All jobs that somebody wants to know of: these, and those of other readers."""
        self.wanted = {j: t for j, t in self.wanted.items() if now - t < WANTED_FOR_S}
        self.wanted.update(dict.fromkeys(jobs, now))
        return [j for j in self.wanted if not self._is_settled(j, now)]

    def take(
        self, jobs: Iterable[str], source: str, rows: dict[str, list[JobRow]], now: float
    ) -> None:
        """Put an answer in; the intervals grow while nothing changes."""
        changed = False
        for job in jobs:
            answer = Answer(now, source, tuple(rows.get(job, ())))
            old = self.by_job.get(job)
            changed |= old is None or old.rows != answer.rows
            self.by_job[job] = answer
        self.level = 0 if changed else self.level + 1

    def _is_settled(self, job: str, now: float) -> bool:
        answer = self.by_job.get(job)
        return answer is not None and answer.is_settled and now - answer.time < SETTLED_FOR_S


class AnswersFile:
    """The file in a folder of runs. A folder that cannot be written to costs the sharing only."""

    def __init__(self, runs_dir: Path) -> None:
        self._path = runs_dir / ".scheduler.json"
        self._lock = runs_dir / ".scheduler.lock"

    def read(self, now: float) -> Answers:
        """What is remembered, or nothing."""
        try:
            answers = _from_json(read_json(self._path) or {})
        except (AttributeError, KeyError, TypeError, ValueError):
            return Answers()
        # a clock that was set back would silence us for as long
        return Answers() if answers.asked > now + 5.0 else answers

    def write(self, answers: Answers) -> None:
        """Remember; jobs that nobody has wanted for a day are left out."""
        newest = max((a.time for a in answers.by_job.values()), default=0.0)
        kept = {j: a for j, a in answers.by_job.items() if newest - a.time < 86400.0}
        try:
            write_json(
                self._path, asdict(answers) | {"by_job": {j: asdict(a) for j, a in kept.items()}}
            )
        except OSError:
            return

    @contextmanager
    def claimed(self) -> Iterator[bool]:
        """Be the one that asks; gives False when somebody else is asking now."""
        try:
            handle = self._lock.open("a")
        except OSError:
            yield True
            return
        with handle:
            try:
                flock(handle, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError:
                pass  # a file system without locks
            yield True


def _from_json(raw: dict[str, Any]) -> Answers:
    # every value is converted: a wrong type is an error here and not later
    trouble_since = raw["failing_since"]
    return Answers(
        asked=float(raw["asked"]),
        calls=[float(t) for t in raw["calls"]],
        level=int(raw["level"]),
        failing_since=None if trouble_since is None else float(trouble_since),
        trouble=str(raw["trouble"]),
        sacct_asked=float(raw["sacct_asked"]),
        wanted={str(job): float(t) for job, t in raw["wanted"].items()},
        by_job={str(job): _answer(a) for job, a in raw["by_job"].items()},
    )


def _answer(raw: dict[str, Any]) -> Answer:
    rows = tuple(JobRow(**row) for row in raw["rows"])
    return Answer(float(raw["time"]), str(raw["source"]), rows)
