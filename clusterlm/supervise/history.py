"""The history of a run: a fold of events.jsonl.

Every event is one object with `time` (unix seconds) and `event`, and these fields:

    created           run cluster version key
    cache_hit         fingerprint
    submitted         phase job_id cluster token [submitted] [tasks] [pid_started host]
                      local: job_id is a pid
    send_unclear      key              Slurm did not answer: a job may be in the queue
    not_sent          phase token      none was
    shares            phase job_id run [tasks] [submitted]   another run prepares the same data
    resumed           by key
    cancel_requested  by now
    phase_started     phase job_id restart nodes host
    attempt_started   phase attempt nodes ranks resume_step
    rank_failed       phase attempt rank host code signal error out_of_memory
    node_lost         phase attempt host silent_s
    stop_requested    phase attempt reason
    attempt_ended     phase attempt cause action evidence rank host code signal error newest_step
    requeued          phase job_id cause
    phase_done        phase
    ended             phase state cause evidence rank host code signal error

Events are facts: nothing here judges. `attempt_ended.cause` and `ended.cause` are names of Cause.
A task of the phase `encode` writes the same into a file of its own. The run's file has of it, with
the further fields `array task`, the attempts that failed and the end that it brought on the run.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusterlm.node.files import append_json, read_jsonl
from clusterlm.node.secret_env import redactor_of
from clusterlm.paths import Phase, RunPaths


@dataclass(frozen=True)
class JobRef:
    """One submitted job. The id alone is no identity: ids are used again, requeues keep them."""

    phase: Phase
    job_id: str
    cluster: str
    submitted: float
    """0 when it is not known: of a job that another run submitted."""
    owner: str
    """Run that submitted it; another run's for shared preprocessing."""
    pid_started: float | None = None
    """Local only: start time of the process, because pids are used again."""
    host: str | None = None
    tasks: int = 1
    """Of a job array."""


@dataclass
class History:
    """What the events of one run add up to."""

    run: str
    cluster: str = "local"
    created: float | None = None
    updated: float | None = None
    fingerprint: str | None = None
    jobs: dict[str, JobRef] = field(default_factory=dict)
    """Latest job of each phase."""
    past_jobs: list[JobRef] = field(default_factory=list)
    phase: Phase | None = None
    """Phase that has begun last."""
    done_phases: set[str] = field(default_factory=set)
    attempt: int | None = None
    nodes: list[str] = field(default_factory=list)
    attempt_open: bool = False
    ranks: int | None = None
    """Of the newest attempt."""
    failure: dict[str, Any] | None = None
    """Of the running attempt: the first rank_failed or node_lost."""
    last_end: dict[str, Any] | None = None
    """The newest attempt_ended."""
    ends: list[dict[str, Any]] = field(default_factory=list)
    cancel_requested: float | None = None
    stop_reason: str | None = None
    requeued: bool = False
    unclear: str = ""
    """Key of a submit that does not know whether a job of it is in the queue."""
    end: dict[str, Any] | None = None
    """The `ended` event, until somebody resumes."""

    def attempts_of(self, phase: Phase) -> list[dict[str, Any]]:
        """The attempt_ended events of one phase since the run was last submitted or resumed."""
        return [e for e in self.ends if e.get("phase") == phase]


def record(run: RunPaths, event: str, /, **fields: Any) -> None:
    """Append one event; a run directory that somebody has deleted does not come back by it."""
    if event != "created" and not run.events.exists():
        return
    # an error may quote what it was given
    safe = redactor_of(run.secrets).tree(fields)
    append_json(run.events, {"time": time.time(), "event": event, **safe})


def read_history(run: RunPaths) -> History:
    """Fold the events written so far."""
    return fold(run.name, read_jsonl(run.events)[0])


def read_history_at(path: Path) -> History:
    """As `read_history`, by the folder of a run."""
    return read_history(RunPaths(path))


def fold(run: str, events: list[dict[str, Any]]) -> History:
    """Fold events in the order they were written; unknown ones are left out."""
    history = History(run)
    for event in events:
        history.updated = event.get("time", history.updated)
        step = _STEPS.get(str(event.get("event")))
        if step:
            # a field that is missing (another version, a half-written line) costs the event only
            with suppress(KeyError):
                step(history, event)
    return history


def _created(h: History, e: dict[str, Any]) -> None:
    h.created, h.cluster = e["time"], e.get("cluster", h.cluster)


def _cache_hit(h: History, e: dict[str, Any]) -> None:
    h.fingerprint = e.get("fingerprint")
    h.done_phases.add("preprocess")


def _submitted(h: History, e: dict[str, Any]) -> None:
    ref = JobRef(
        phase=e["phase"],
        job_id=str(e["job_id"]),
        cluster=e.get("cluster", h.cluster),
        # a shared job was submitted some time before we joined it
        submitted=e.get("submitted", 0.0 if e["event"] == "shares" else e["time"]),
        owner=e.get("run", h.run),
        pid_started=e.get("pid_started"),
        host=e.get("host"),
        tasks=int(e.get("tasks", 1)),
    )
    if old := h.jobs.get(ref.phase):
        h.past_jobs.append(old)
    h.jobs[ref.phase] = ref
    h.unclear = ""


def _send_unclear(h: History, e: dict[str, Any]) -> None:
    h.unclear = e["key"]


def _not_sent(h: History, e: dict[str, Any]) -> None:
    h.unclear = ""


def _resumed(h: History, e: dict[str, Any]) -> None:
    h.end = h.failure = h.cancel_requested = h.stop_reason = None
    h.ends = []
    h.requeued = h.attempt_open = False
    h.phase = None
    h.past_jobs += list(h.jobs.values())
    h.jobs = {}


def _cancel_requested(h: History, e: dict[str, Any]) -> None:
    h.cancel_requested = e["time"]


def _phase_started(h: History, e: dict[str, Any]) -> None:
    if e["phase"] not in h.jobs and e.get("job_id"):
        # the submitting command was killed after sbatch and before it could write: the job says so
        h.jobs[e["phase"]] = JobRef(e["phase"], str(e["job_id"]), h.cluster, 0.0, h.run)
    waits_for_data = "preprocess" in h.jobs and "preprocess" not in h.done_phases
    if e["phase"] == "train" and h.phase != "train" and waits_for_data:
        # cluster: local has no scheduler: the training's supervisor waits beside the data phase
        return
    h.phase, h.requeued, h.stop_reason = e["phase"], False, None
    h.attempt_open = False
    # a scheduler that took the nodes away in the last moment starts it again
    h.done_phases.discard(h.phase)


def _attempt_started(h: History, e: dict[str, Any]) -> None:
    h.phase, h.attempt, h.nodes = e["phase"], e["attempt"], e.get("nodes", [])
    h.attempt_open, h.failure, h.stop_reason = True, None, None
    h.ranks = e.get("ranks")


def _failure(h: History, e: dict[str, Any]) -> None:
    h.failure = h.failure or e


def _stop_requested(h: History, e: dict[str, Any]) -> None:
    h.stop_reason = e.get("reason")


def _attempt_ended(h: History, e: dict[str, Any]) -> None:
    h.ends.append(e)
    # local: the data phase may write its end after the training has begun on READY
    if e.get("phase", h.phase) == h.phase:
        h.last_end, h.attempt_open = e, False


def _requeued(h: History, e: dict[str, Any]) -> None:
    h.requeued = True


def _phase_done(h: History, e: dict[str, Any]) -> None:
    h.done_phases.add(e["phase"])


def _ended(h: History, e: dict[str, Any]) -> None:
    # the first is the truth: a training that waited for data says afterwards that there is none
    h.end = h.end or e


_STEPS = {
    "created": _created,
    "cache_hit": _cache_hit,
    "submitted": _submitted,
    "shares": _submitted,
    "send_unclear": _send_unclear,
    "not_sent": _not_sent,
    "resumed": _resumed,
    "cancel_requested": _cancel_requested,
    "phase_started": _phase_started,
    "attempt_started": _attempt_started,
    "rank_failed": _failure,
    "node_lost": _failure,
    "stop_requested": _stop_requested,
    "attempt_ended": _attempt_ended,
    "requeued": _requeued,
    "phase_done": _phase_done,
    "ended": _ended,
}
