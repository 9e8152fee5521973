"""Events of a run in words, one line each: what `logs -f` and `--watch` say when it happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from clusterlm.cluster.log_text import readable_line
from clusterlm.cluster.tasks import name_of
from clusterlm.supervise.causes import Cause
from clusterlm.supervise.failure import end_words

Event = Mapping[str, Any]

LONGEST = 240
"""Characters of a line; a compiler's command in an error has thousands."""


def words_of(event: Event) -> str:
    """The line for an event; empty for those that nobody needs to read."""
    say = _WORDS.get(str(event.get("event")))
    # errors come from logs: nothing in them may reach the terminal as a command
    return cut(readable_line(say(event))) if say else ""


def clock_of(event: Event) -> str:
    """`14:03:07`, in local time."""
    moment = event.get("time")
    if not isinstance(moment, int | float):
        return "--:--:--"
    return time.strftime("%H:%M:%S", time.localtime(moment))


def cut(text: str) -> str:
    """So much of a line as a screen can hold; `clusterlm why` shows all of it."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def failure_words(event: Event) -> str:
    """`rank 1 on node2 failed (exit 3): ValueError: no such key`."""
    return f"rank {event.get('rank')} on {event.get('host')} {end_words(event)}"


def cause_words(event: Event) -> str:
    """The cause that an event names, in words."""
    name = str(event.get("cause"))
    return Cause[name].words if name in Cause.__members__ else name


def _attempt_started(e: Event) -> str:
    nodes = ",".join(str(n) for n in e.get("nodes") or ["?"])
    resumed = f", from step {e['resume_step']}" if e.get("resume_step") is not None else ""
    return f"{e.get('phase')} attempt {e.get('attempt')} on {nodes}{resumed}"


def _attempt_ended(e: Event) -> str:
    if e.get("cause") == Cause.DONE.name:
        return f"{name_of(e)} attempt {e.get('attempt')} is done"
    follows = {"retry": "; trying again", "requeue": "; back to the queue"}.get(
        str(e.get("action")), ""
    )
    why = f" ({e['evidence']})" if e.get("evidence") else ""
    return f"{name_of(e)} attempt {e.get('attempt')} ended: {cause_words(e)}{why}{follows}"


def _submitted(e: Event) -> str:
    tasks = f", {e['tasks']} tasks" if "tasks" in e else ""
    return f"{e.get('phase')} submitted as job {e.get('job_id')}{tasks}"


def _ended(e: Event) -> str:
    if e.get("state") == "DONE":
        return "DONE"
    why = f" ({e['evidence']})" if e.get("evidence") else ""
    whose = f"{name_of(e)}: " if "task" in e else ""
    return f"{e.get('state')}: {whose}{cause_words(e)}{why}"


_WORDS: dict[str, Callable[[Event], str]] = {
    "shares": lambda e: f"run {e.get('run')} prepares the same data in job {e.get('job_id')}",
    "cache_hit": lambda e: "the prepared data is there already",
    "submitted": _submitted,
    "resumed": lambda e: f"resumed by {e.get('by')}",
    "cancel_requested": lambda e: f"cancel requested by {e.get('by')}",
    "attempt_started": _attempt_started,
    "rank_failed": failure_words,
    "node_lost": lambda e: f"{e.get('host')} lost: no heartbeat for {e.get('silent_s')} s",
    "stop_requested": lambda e: f"asked to save and end ({e.get('reason')})",
    "attempt_ended": _attempt_ended,
    "requeued": lambda e: "requeued: the scheduler starts it again when nodes are free",
    "phase_done": lambda e: f"{e.get('phase')} is done",
    "ended": _ended,
}
