"""What a run says of itself: its own files, read at one moment. Asks no scheduler, judges nothing.

Ages come from the modification time of a file: the writer's clock is another one.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from clusterlm.cluster.tasks import Tasks, read_tasks
from clusterlm.node.files import age_of, read_json
from clusterlm.node.records import ExitRecord, Progress, read_exits
from clusterlm.paths import Phase, RunPaths
from clusterlm.spec.job import LOCAL
from clusterlm.supervise.allocation import process_lives
from clusterlm.supervise.failure import plain_failure
from clusterlm.supervise.history import History, JobRef, read_history

SILENT_NODE_S = 20.0
"""Agents write every 5 s."""


@dataclass(frozen=True)
class Records:
    """One run as its files tell it."""

    run: RunPaths
    history: History
    """With the failure that a rank has written down and the supervisor has not yet seen."""
    phase: Phase
    """Phase that the run is in, or was in last."""
    attempt: int | None
    beat_s_ago: float | None = None
    """Age of supervisor.json; None when it is not of a job that should be running."""
    beat_host: str | None = None
    silent: dict[str, float] = field(default_factory=dict)
    progress: Progress | None = None
    """Of the newest attempt that has any."""
    progress_s_ago: float | None = None
    progress_is_current: bool = False
    """It is of the attempt that runs now."""

    tasks: Tasks | None = None
    """Of the array, while the run is in its phase."""
    all_ranks_done: bool = False
    """Every rank of the newest attempt has recorded a good end; looked at when nothing lives."""

    @property
    def is_final(self) -> bool:
        """The run has written its end."""
        return self.history.end is not None

    @property
    def job_now(self) -> JobRef | None:
        """Job of the phase that the run is in."""
        return self.history.jobs.get(self.phase)

    @property
    def waits_for_data(self) -> bool:
        """The data phase has not ended, as far as the events tell."""
        return self.phase != "train" and "preprocess" in self.history.jobs


def read_records(run: RunPaths, now: float | None = None) -> Records:
    """Read what the run's files hold now."""
    now = time.time() if now is None else now
    history = read_history(run)
    phase, tasks = _phase_of(run, history, now)
    attempt = history.attempt if history.phase == phase else None
    progress_of, progress, progress_s_ago = _newest_progress(run, phase, attempt, now)
    records = Records(
        run=run,
        history=history,
        phase=phase,
        attempt=attempt,
        progress=progress,
        progress_s_ago=progress_s_ago,
        progress_is_current=progress_of is not None and progress_of == attempt,
        tasks=tasks,
    )
    if history.end is not None:
        return records
    if tasks and tasks.running:
        return replace(records, beat_s_ago=tasks.beat_s_ago, beat_host=tasks.beat_host)
    records = _with_signs_of_life(records, now)
    if records.beat_s_ago is None and phase == "train":
        records = replace(records, all_ranks_done=_all_ranks_done(records))
    return records


def _phase_of(run: RunPaths, history: History, now: float) -> tuple[Phase, Tasks | None]:
    """The phase, and what its tasks say when it is the one that has some."""
    is_prepared = "preprocess" in history.done_phases or "preprocess" not in history.jobs
    if history.phase == "train" or is_prepared:
        return "train", None
    array = history.jobs.get("encode")
    if array is None or history.phase == "preprocess":
        return "preprocess", None
    tasks = read_tasks(run, array, now)
    return ("preprocess", None) if tasks.are_done else ("encode", tasks)


def _with_signs_of_life(records: Records, now: float) -> Records:
    beat = read_json(records.run.supervisor) or {}
    ids = {job.job_id for job in records.history.jobs.values()}
    history = _with_unseen_failure(records)
    # "ended": the silence is on purpose; another id: of a job before the last resume
    if beat.get("state") == "ended" or str(beat.get("job_id")) not in ids:
        return replace(records, history=history)
    if _process_is_gone(records.history, str(beat.get("job_id"))):
        return replace(records, history=history)
    age_s = age_of(records.run.supervisor, now)
    if beat.get("phase") == "preprocess" and records.phase == "train":
        return replace(records, history=history)
    return replace(
        records,
        history=history,
        beat_s_ago=age_s,
        beat_host=str(beat.get("host") or "") or None,
        silent=_silent(beat.get("nodes"), age_s or 0.0),
    )


def _process_is_gone(history: History, job_id: str) -> bool:
    """Local only: this machine knows at once what a heartbeat tells after a while."""
    jobs = [job for job in history.jobs.values() if job.job_id == job_id]
    if history.cluster != LOCAL or not jobs or jobs[0].host != socket.gethostname():
        return False
    return not process_lives(int(job_id), jobs[0].pid_started)


def _with_unseen_failure(records: Records) -> History:
    """The rank's own record comes first: the supervisor writes its event up to a second later."""
    history = records.history
    if not history.attempt_open or history.failure or history.stop_reason or not history.attempt:
        return history
    root = records.run.attempt(records.phase, history.attempt).root
    failure = plain_failure(read_exits(root))
    if failure is None:
        return history
    return replace(history, failure=event_of(failure, records.phase, history.attempt))


def event_of(failure: ExitRecord, phase: str, attempt: int) -> dict[str, object]:
    """The `rank_failed` event that the supervisor will write for this record."""
    return {
        "time": failure.time,
        "event": "rank_failed",
        "phase": phase,
        "attempt": attempt,
        "rank": failure.rank,
        "host": failure.host,
        "code": failure.code,
        "signal": failure.signal,
        "error": failure.error,
    }


def _all_ranks_done(records: Records) -> bool:
    """A supervisor that was killed in the last moment leaves a training that is done."""
    h = records.history
    if not h.attempt_open or not h.attempt or not h.ranks:
        return False
    exits = read_exits(records.run.attempt("train", h.attempt).root)
    return len(exits) == h.ranks and all(e.code == 0 for e in exits)


def _silent(nodes: object, age_s: float) -> dict[str, float]:
    if not isinstance(nodes, dict):
        return {}
    ages = {str(h): float(s) + age_s for h, s in nodes.items() if isinstance(s, int | float)}
    # the beat itself may be some seconds old: it must not make every node look silent
    return {host: s for host, s in ages.items() if s - age_s > SILENT_NODE_S}


def _newest_progress(
    run: RunPaths, phase: Phase, attempt: int | None, now: float
) -> tuple[int | None, Progress | None, float | None]:
    for number in _newest_first(run, phase, attempt):
        path = run.attempt(phase, number).progress
        progress = Progress.read(path)
        if progress is not None:
            return number, _sane(progress), age_of(path, now)
    return None, None, None


def _newest_first(run: RunPaths, phase: Phase, attempt: int | None) -> Iterator[int]:
    # the attempt of the events nearly always has it: a folder is listed for those that do not
    if attempt is not None:
        yield attempt
    yield from reversed([n for n in run.attempt_numbers(phase) if n != attempt])


def _sane(progress: Progress) -> Progress:
    """A user's own script may write anything."""
    step, total = progress.step, progress.total_steps
    return replace(
        progress,
        step=step if isinstance(step, int) else None,
        total_steps=total if isinstance(total, int) else None,
        loss=_number(progress.loss),
        tokens_per_s=_number(progress.tokens_per_s),
        eta_s=_number(progress.eta_s),
        tokens_per_s_per_gpu=_number(progress.tokens_per_s_per_gpu),
        mfu=_number(progress.mfu),
        data_wait=_number(progress.data_wait),
        eval_loss=_number(progress.eval_loss),
        perplexity=_number(progress.perplexity),
        text=str(progress.text) if progress.text is not None else None,
    )


def _number(value: object) -> float | None:
    # a loss may be NaN, which is no JSON
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
