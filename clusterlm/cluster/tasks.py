"""The job array that encodes, as its tasks tell it: how many are done, which one is in trouble.

Each task keeps records of its own, like a small run (`supervise/task.py`). They lie in the folder
of the run that sent the array; a run that shares the data reads them there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clusterlm.node.files import age_of, read_json
from clusterlm.paths import AttemptPaths, Phase, RunPaths, TaskPaths
from clusterlm.supervise.history import History, JobRef, read_history
from clusterlm.supervise.judge_run import SILENT_SUPERVISOR_S


@dataclass(frozen=True)
class Tasks:
    """All tasks of an array at one moment."""

    asked: int
    done: int = 0
    running: int = 0
    """Whose heartbeat is fresh."""
    nodes: tuple[str, ...] = ()
    """Where those run."""
    beat_s_ago: float | None = None
    """Age of the newest heartbeat of those."""
    beat_host: str | None = None
    failure: dict[str, Any] | None = None
    """What a task is just now tried again after."""
    has_ended: bool = False
    """By one that failed for good."""

    @property
    def are_done(self) -> bool:
        return self.done == self.asked

    @property
    def words(self) -> str:
        """`3 of 16 tasks done, 8 running`."""
        running = f", {self.running} running" if self.running else ""
        return f"{self.done} of {self.asked} tasks done{running}"


def read_tasks(run: RunPaths, array: JobRef, now: float) -> Tasks:
    """Read what the tasks of `array`, which `run` or the run that it shares with sent, say now."""
    owner = RunPaths(run.root.parent / array.owner)
    begun = [t for t in tasks_of(owner, array.job_id) if t.number < array.tasks]
    histories = {task: read_history(task) for task in begun}
    done = sum("encode" in history.done_phases for history in histories.values())
    ages = {task: _beat_s_ago(task, h, now) for task, h in histories.items()}
    living = {task: h for task, h in histories.items() if ages[task] < SILENT_SUPERVISOR_S}
    newest = min(living, key=ages.__getitem__, default=None)
    return Tasks(
        asked=array.tasks,
        done=done,
        running=len(living),
        nodes=tuple(dict.fromkeys(node for h in living.values() for node in h.nodes)),
        beat_s_ago=ages[newest] if newest else None,
        beat_host=next(iter(living[newest].nodes), None) if newest else None,
        failure=next((f for task, h in living.items() if (f := _failure(task, h))), None),
        has_ended=owner.task(array.job_id, 0).end.exists(),
    )


def tasks_of(run: RunPaths, array: str = "*") -> list[TaskPaths]:
    """Tasks that have begun, in order; of every array that the run has sent, or of one."""
    folders = [events.parent for events in run.root.glob(f"encode/{array}/*/events.jsonl")]
    found = [run.task(f.parent.name, int(f.name)) for f in folders if f.name.isdecimal()]
    return sorted(found, key=lambda task: (task.array, task.number))


def attempt_of(run: RunPaths, event: Mapping[str, Any], phase: Phase) -> AttemptPaths:
    """The attempt that an event of the run's own record speaks of."""
    if phase == "encode":
        run = run.task(str(event.get("array")), int(event.get("task", 0)))
    return run.attempt(phase, int(event["attempt"]))


def name_of(event: Mapping[str, Any]) -> str:
    """`train`, or `encode task 3`: whose an event is."""
    task = f" task {event['task']}" if "task" in event else ""
    return f"{event.get('phase')}{task}"


def _beat_s_ago(task: TaskPaths, history: History, now: float) -> float:
    """Age of a task's heartbeat; of one that has ended or waits in the queue: infinite."""
    if history.requeued or "encode" in history.done_phases:
        return math.inf
    beat, age = read_json(task.supervisor), age_of(task.supervisor, now)
    is_silent_on_purpose = beat is None or beat.get("state") == "ended"
    return math.inf if is_silent_on_purpose or age is None else age


def _failure(task: TaskPaths, history: History) -> dict[str, Any] | None:
    """As for a run: a failure of the attempt that is on, or its end before there is a next one."""
    told = history.failure if history.attempt_open else history.last_end
    if told is None or told.get("cause") == "DONE":
        return None
    return {**told, "array": task.array, "task": task.number}
