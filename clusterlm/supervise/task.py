"""One task of the job array that encodes, as far as it is more than a phase of its own.

A task is supervised like any phase: its own attempts, heartbeat, retries and requeue, so that one
that fails is tried again alone. It keeps its own records too. The run's records get from it what
everybody must know: an attempt that failed, and an end for good. That end is the end of the whole
array: the first task that comes to one writes `end.json`, tells the run, and ends the others, which
would only come to the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from clusterlm.node.files import create_json, has_appeared, read_json
from clusterlm.paths import PRIVATE_DIR, RunPaths, TaskPaths
from clusterlm.spec.job import SLURM
from clusterlm.supervise.allocation import Allocation, end_job
from clusterlm.supervise.causes import Cause, Restart
from clusterlm.supervise.history import record


def records_of(run: RunPaths, allocation: Allocation) -> RunPaths:
    """Where this job keeps its records: in the run, or in the folder of its task."""
    if not allocation.array:
        return run
    task = run.task(allocation.array, allocation.task)
    # not `parents`: a run directory that somebody has deleted must not come back as a skeleton
    for folder in (task.own.parent.parent, task.own.parent, task.own):
        folder.mkdir(exist_ok=True, mode=PRIVATE_DIR)
    if not task.events.exists():
        record(task, "created", run=run.name, cluster=SLURM)
    return task


def environment_of(run: RunPaths, tasks: int) -> dict[str, str]:
    """What the step of a task is told: `CLUSTERLM_TASK=3/16`, the number from 0."""
    return {"CLUSTERLM_TASK": f"{run.number}/{tasks}"} if isinstance(run, TaskPaths) else {}


def ended_by_another(run: RunPaths) -> dict[str, Any] | None:
    """As a request to cancel: another task has ended the array."""
    if not isinstance(run, TaskPaths) or not has_appeared(run.end):
        return None
    end = read_json(run.end) or {}
    return {"by": f"task {end.get('task')}", "now": True}


def tell_failure(run: RunPaths, node: str, fields: Mapping[str, Any]) -> None:
    """Put the end of an attempt of a task on the run's record, if it was a failure.

    What fails when the array has ended says nothing new.
    """
    if not isinstance(run, TaskPaths) or has_appeared(run.end):
        return
    cause = Cause[fields["cause"]]
    if cause.restart is Restart.FREE or cause in (Cause.DONE, Cause.CANCELLED):
        return
    record(RunPaths(run.root), "attempt_ended", **_told(run, node, fields))


def end_all(run: RunPaths, node: str, fields: Mapping[str, Any]) -> None:
    """Let the end of a task be the end of the run, unless another task was first."""
    if not isinstance(run, TaskPaths):
        return
    told = _told(run, node, fields)
    told["evidence"] = f"task {run.number}: {told['evidence']}"
    if create_json(run.end, {"time": time.time(), **told}):
        record(RunPaths(run.root), "ended", **told)
        # the running ones see end.json; those in the queue would wait for nodes to find it out
        end_job(run.array)


def _told(task: TaskPaths, node: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    # the node also of what no rank has said
    whose = {"array": task.array, "task": task.number}
    return {**whose, **fields, "host": fields.get("host") or node}
