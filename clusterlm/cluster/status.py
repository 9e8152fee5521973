"""The state of runs, as `status` shows it: own records first, then one look at the scheduler.

    read_runs(runs_dir)                 once, with fresh answers: two scheduler calls at most
    StatusReader(runs_dir).glance()     again and again, never waiting for the scheduler

What the state is decides `supervise/judge.py`; this file brings it what it has to know.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from clusterlm.cluster.host import LocalHost
from clusterlm.cluster.log_text import readable_line
from clusterlm.cluster.places import all_runs_dirs, use_folders
from clusterlm.cluster.records import Records, read_records
from clusterlm.cluster.run_status import RunStatus, compose
from clusterlm.cluster.scheduler import LOCAL, NOT_ASKED, SchedulerView, Seen
from clusterlm.errors import RunError
from clusterlm.paths import RunPaths
from clusterlm.spec.local_folders import folders_beside
from clusterlm.supervise.causes import State
from clusterlm.supervise.history import History, JobRef, read_history
from clusterlm.supervise.judge_run import (
    SILENT_SUPERVISOR_S,
    SUBMIT_TAKES_S,
    judge_run,
)
from clusterlm.supervise.slurm_states import JobRow, Life
from clusterlm.supervise.views import RunView

FRESH_S = 5.0


def read_runs(runs_dir: Path, names: Iterable[str] | None = None) -> list[RunStatus]:
    """The runs in a folder, the newest first; all of them, or those named."""
    return StatusReader(runs_dir).read(names)


class StatusReader:
    """Reads runs, once or over and over."""

    def __init__(
        self,
        runs_dir: Path,
        view: SchedulerView | None = None,
        *,
        further: Sequence[Path] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._runs_dir, self._further, self._clock = runs_dir, further, clock
        self._view = view or SchedulerView(runs_dir, LocalHost())
        self.notes: list[str] = []
        """What was left out, and why; of the last look."""

    def read(self, names: Iterable[str] | None = None) -> list[RunStatus]:
        """Look once, with fresh answers; waits for the scheduler as long as that takes."""
        return self._look(names, lambda jobs: self._view.look(jobs, max_age_s=FRESH_S))

    def glance(self, names: Iterable[str] | None = None) -> list[RunStatus]:
        """Look again: never waits, and asks the scheduler as seldom as `SchedulerView` says."""
        return self._look(names, self._view.glance)

    def glance_at(self, run: RunPaths) -> RunStatus:
        """As `glance`, at one run of this folder.

        Raises:
            RunError: its records cannot be read.
        """
        found = self.glance([run.name])
        if not found:
            raise RunError("; ".join(self.notes))
        return found[0]

    def _look(
        self,
        names: Iterable[str] | None,
        see: Callable[[list[JobRef]], Mapping[str, Seen]],
    ) -> list[RunStatus]:
        self.notes = []
        now = self._clock()
        found = [read_records(run, now) for run in self._folders(names)]
        jobs = [job for records in found for job in _jobs_to_see(records)]
        seen = see(jobs) if jobs else {}
        now = self._clock()
        statuses = []
        for records in found:
            if _is_gone(records, seen):
                # it may have written its end between our two looks
                records = read_records(records.run, now)
            try:
                statuses.append(_status(records, seen, now))
            except (KeyError, TypeError, ValueError) as error:
                # one folder of another version must not hide the others
                self.notes.append(f"{records.run.name}: cannot be read ({error})")
        return sorted(statuses, key=lambda s: (s.state.is_final, s.updated_s_ago or 0.0))

    def _folders(self, names: Iterable[str] | None) -> list[RunPaths]:
        if names is not None:
            return [RunPaths(self._runs_dir / name) for name in names]
        runs = []
        # those of other clusters of this machine: one Slurm, so one view of it
        for runs_dir in (self._runs_dir, *self._further):
            for name in _folder_names(runs_dir):
                folder = runs_dir / name
                if (folder / "events.jsonl").exists():
                    runs.append(RunPaths(folder))
                else:
                    self.notes.append(f"{name}: no run (it has no events.jsonl)")
        return runs


def _folder_names(runs_dir: Path) -> list[str]:
    try:
        with os.scandir(runs_dir) as found:
            return sorted(e.name for e in found if e.is_dir() and not e.name.startswith("."))
    except OSError:
        return []


def _jobs_to_see(records: Records) -> list[JobRef]:
    """Jobs whose row decides the state: none while the run's own records are fresh."""
    history = records.history
    fresh = records.beat_s_ago is not None and records.beat_s_ago < SILENT_SUPERVISOR_S
    if records.is_final or (fresh and not history.requeued):
        return []
    phases = ("encode", "preprocess", "train") if records.waits_for_data else ("train",)
    return [job for phase in phases if (job := history.jobs.get(phase)) is not None]


def _is_gone(records: Records, seen: Mapping[str, Seen]) -> bool:
    rows = [seen[job.job_id] for job in _jobs_to_see(records) if job.job_id in seen]
    return any(not s.is_blind and (s.row is None or s.row.life is Life.ENDED) for s in rows)


def _status(records: Records, seen: Mapping[str, Seen], now: float) -> RunStatus:
    phase, job = _job_that_matters(records, seen)
    sight = seen.get(job.job_id, NOT_ASKED) if job and _jobs_to_see(records) else None
    if sight is not None and job is not None:
        sight = _not_yet_asked(sight, job, records.history, now)
    view = RunView(
        history=records.history,
        supervisor_s_ago=records.beat_s_ago,
        supervisor_host=records.beat_host,
        silent=records.silent,
        progress_step=_current_step(records),
        tasks=records.tasks.words if records.tasks else "",
        task_failure=records.tasks.failure if records.tasks else None,
        all_ranks_done=records.all_ranks_done,
        row=None if sight is None or sight.is_blind else _with_reason(sight.row, records, seen),
        row_phase=phase,
        row_is_blind=sight is not None and sight.is_blind,
        row_s_ago=(sight.age_s or 0.0) if sight else 0.0,
        now=now,
    )
    verdict = judge_run(view)
    return compose(records, verdict, sight, now)


def _job_that_matters(records: Records, seen: Mapping[str, Seen]) -> tuple[str, JobRef | None]:
    """The data phase while it waits or runs, or ended badly; else the training."""
    jobs = records.history.jobs
    prepare, train = jobs.get("preprocess"), jobs.get("train")
    if records.tasks and not records.tasks.has_ended:
        at = seen.get(jobs["encode"].job_id, NOT_ASKED)
        if at.row.state != "COMPLETED" if at.row else at.is_blind:
            return "encode", jobs["encode"]
    if prepare is None or not records.waits_for_data:
        return "train", train
    at = seen.get(prepare.job_id, NOT_ASKED)
    lives = at.row is not None and at.row.life is not Life.ENDED
    was_cancelled = at.row is not None and at.row.state == "CANCELLED"
    if train is None or lives or was_cancelled or (at.is_blind and at.row is None):
        return "preprocess", prepare
    training = seen.get(train.job_id, NOT_ASKED)
    if training.row is None and at.row is not None and at.row.state != "COMPLETED":
        return "preprocess", prepare
    return "train", train


def _with_reason(row: JobRow | None, records: Records, seen: Mapping[str, Seen]) -> JobRow | None:
    """Some versions forget why a training was cancelled: because its data phase had failed."""
    prepare = records.history.jobs.get("preprocess")
    at = seen.get(prepare.job_id) if prepare else None
    if row is None or row.state != "CANCELLED" or at is None or at.row is None:
        return row
    failed = at.row.life is Life.ENDED and at.row.state not in ("COMPLETED", "CANCELLED")
    return replace(row, reason="DependencyNeverSatisfied") if failed else row


def _not_yet_asked(sight: Seen, job: JobRef, history: History, now: float) -> Seen:
    """What the run itself knows better than an answer that is missing or older than the news."""
    if job.cluster == LOCAL:
        return sight
    asked = now - sight.age_s if sight.age_s is not None else 0.0
    if history.requeued and asked < (history.updated or 0.0):
        return _waiting(job, "BeginTime", now - (history.updated or now), sight)
    if not sight.source and now - job.submitted < SUBMIT_TAKES_S:
        return _waiting(job, "", now - job.submitted, sight)
    return sight


def _waiting(job: JobRef, reason: str, age_s: float, sight: Seen) -> Seen:
    row = JobRow(job.job_id, "PENDING", reason=reason, source="records")
    return Seen(row, "records", max(0.0, age_s), trouble=sight.trouble)


def _current_step(records: Records) -> int | None:
    progress = records.progress
    return progress.step if progress and records.progress_is_current else None


def find_run(text: str, runs_dir: Path | None = None) -> RunPaths:
    """A run by its name, or by the path of its folder.

    One of a cluster that has folders of its own makes its caches those of this process.

    Raises:
        RunError: there is none; the message names near ones.
    """
    folders = [runs_dir] if runs_dir else all_runs_dirs()
    is_name = bool(text) and "/" not in text
    candidates = [folder / text for folder in folders] if is_name else [Path(text).absolute()]
    for path in candidates:
        if text not in (".", "..") and (path / "events.jsonl").exists():
            use_folders(folders_beside(path.parent))
            return RunPaths(path)
    names = sorted(
        readable_line(p.parent.name)
        for folder in folders
        for p in folder.glob("*/events.jsonl")
        if not p.parent.name.startswith(".")
    )
    from clusterlm.cluster.remote.runs_elsewhere import all_elsewhere

    names = sorted({*names, *(readable_line(one.run) for one in all_elsewhere())})
    where = " or ".join(map(str, folders))
    if not names:
        raise RunError(f"no run {text!r}: there are no runs in {where}")
    from clusterlm.spec.wording import did_you_mean

    raise RunError(f"no run {text!r} in {where}; {did_you_mean(text, names)}")


def supervisor_lives(run: RunPaths) -> bool:
    """Whether a batch step runs that can obey a request."""
    records = read_records(run)
    fresh = records.beat_s_ago is not None and records.beat_s_ago < SILENT_SUPERVISOR_S
    return fresh and not records.is_final and not records.history.requeued


def refuse_living(run: RunPaths) -> None:
    """Raise unless the run has ended.

    Raises:
        RunError: it lives, or nobody can say whether it does.
    """
    end = read_history(run).end
    if end is not None and end.get("state") == State.DONE.value:
        is_adapter = (run.model / "adapter_config.json").is_file()
        key = "model.adapter.continue_from" if is_adapter else "model.name"
        raise RunError(
            f"{run.name} is DONE: there is nothing to resume\n"
            f"  train on, as a new run:  {key}: {run.model}"
        )
    if end is not None:
        return
    status = StatusReader(run.root.parent).read([run.name])[0]
    if not status.state.is_final:
        raise RunError(
            f"{run.name} is {status.state.value}: a run is started again only after its end\n"
            f"  end it first:  clusterlm cancel {run.name}"
        )
