"""Decides, in one place and from values only, which state of a run `status` shows.

Pure: records, Slurm's row and the clock come in as values. The run's own records go before the
scheduler's word. Being blind (no fresh record and no answer from the scheduler) is UNKNOWN, never
failed.
"""

from __future__ import annotations

from clusterlm.supervise.causes import Cause, State, cause_of_error
from clusterlm.supervise.failure import end_words
from clusterlm.supervise.history import History
from clusterlm.supervise.slurm_states import JobRow, Life
from clusterlm.supervise.views import RunView, Verdict

SILENT_SUPERVISOR_S = 45.0
"""The batch step writes every 5 s; nine missed ones are no hiccup of a shared file system."""

SUBMIT_TAKES_S = 60.0
"""From the first event of a run to the id of its job; sbatch may wait for a busy controller."""


def judge_run(view: RunView) -> Verdict:
    """The state to show for a run; the run's own records go before the scheduler's word."""
    h = view.history
    if h.end is not None:
        return Verdict(State(h.end["state"]), _cause_named(h.end), h.end.get("evidence", ""))
    if not h.jobs:
        return _unsubmitted(view)
    alive = view.supervisor_s_ago is not None and view.supervisor_s_ago < SILENT_SUPERVISOR_S
    if h.cancel_requested is not None:
        return _cancelling(view, alive)
    if alive and not h.requeued:
        return _living(view)
    if view.all_ranks_done and not view.row_is_blind and _is_over(view.row):
        text = "all ranks ended well; the batch step was gone before it could say so"
        return Verdict(State.DONE, Cause.DONE, text)
    if view.row is not None:
        return _by_row(view, view.row)
    if view.row_is_blind:
        return _blind(view)
    return Verdict(State.STOPPED, Cause.VANISHED, "neither the run nor the scheduler knows it")


def _is_over(row: JobRow | None) -> bool:
    return row is None or row.life is Life.ENDED


def _unsubmitted(view: RunView) -> Verdict:
    if view.history.unclear:
        text = "Slurm did not answer its submit: it may be in the queue; the same submit with "
        return Verdict(State.UNKNOWN, None, f"{text}--key {view.history.unclear} finds out")
    if view.now - (view.history.updated or 0.0) < SUBMIT_TAKES_S:
        return Verdict(State.PENDING, None, "being submitted")
    return Verdict(State.STOPPED, Cause.VANISHED, "it was never submitted to the end")


def _cause_named(event: dict[str, object]) -> Cause | None:
    name = str(event.get("cause", ""))
    return Cause[name] if name in Cause.__members__ else None


def _cancelling(view: RunView, alive: bool) -> Verdict:
    row_lives = view.row is not None and view.row.life is not Life.ENDED
    if alive or row_lives or view.row_is_blind:
        return Verdict(State.STOPPING, Cause.CANCELLED, "cancel was requested")
    return Verdict(State.CANCELLED, Cause.CANCELLED, "cancelled before it could say so itself")


def _living(view: RunView) -> Verdict:
    h = view.history
    if view.tasks:
        return _encoding(view)
    if h.stop_reason is not None:
        return Verdict(State.STOPPING, None, f"saving after a stop request ({h.stop_reason})")
    if h.failure is not None and h.attempt_open:
        return Verdict(State.RETRYING, _cause_seen(h.failure), _words_of(h.failure))
    if not h.attempt_open and h.last_end is not None and h.last_end.get("phase") == h.phase:
        return Verdict(State.RETRYING, _cause_named(h.last_end), _words_of(h.last_end))
    if view.silent:
        host, age = max(view.silent.items(), key=lambda item: item[1])
        return Verdict(State.STALLED, Cause.NODE_LOST, f"no heartbeat from {host} for {age:.0f} s")
    if h.phase == "preprocess":
        return Verdict(State.PREPROCESSING)
    if view.progress_step is not None:
        return Verdict(State.TRAINING, None, _previous_failure(h))
    return Verdict(State.STARTING, None, _previous_failure(h))


def _encoding(view: RunView) -> Verdict:
    """Tasks side by side: the others go on while one is tried again."""
    if (failure := view.task_failure) is not None:
        cause = _cause_named(failure) or _cause_seen(failure)
        text = f"{view.tasks}; task {failure.get('task')}: {_words_of(failure)}"
        return Verdict(State.RETRYING, cause, text)
    ends = view.history.attempts_of("encode")
    before = f"; task {ends[-1].get('task')} was tried again" if ends else ""
    before += f" after: {_words_of(ends[-1])}" if ends else ""
    return Verdict(State.PREPROCESSING, None, view.tasks + before)


def _cause_seen(failure: dict[str, object]) -> Cause:
    """A first guess, before the attempt is judged as a whole."""
    if failure.get("event") == "node_lost":
        return Cause.NODE_LOST
    if failure.get("signal"):
        return Cause.RANK_KILLED
    return cause_of_error(str(failure.get("error") or ""))


def _previous_failure(h: History) -> str:
    """A word on the attempt before, so that a retry is never silent."""
    ends = h.attempts_of(h.phase) if h.phase else []
    return f"attempt {ends[-1]['attempt']}: {_words_of(ends[-1])}" if ends else ""


def _words_of(event: dict[str, object]) -> str:
    if event.get("evidence"):
        return str(event["evidence"])
    if event.get("event") == "node_lost":
        return f"no heartbeat from {event.get('host')} for {event.get('silent_s')} s"
    return f"rank {event.get('rank')} on {event.get('host')} {end_words(event)}"


def _by_row(view: RunView, row: JobRow) -> Verdict:
    h = view.history
    if row.life is Life.WAITING:
        why = "; ".join(filter(None, (view.tasks, row.reason_words, row.start_words)))
        if h.requeued and h.last_end is not None:
            why = f"requeued after: {_words_of(h.last_end)}" + (f"; {why}" if why else "")
        return Verdict(State.PENDING, None, why)
    if row.life is Life.RUNNING:
        if view.row_phase in ("encode", "preprocess"):
            where = f"in job {row.job_id} on {row.nodes}"
            text = "; ".join(filter(None, (view.tasks, where)))
            return Verdict(State.PREPROCESSING, None, text)
        if view.supervisor_s_ago is None or h.requeued:
            return Verdict(State.STARTING, None, f"{row.state.lower()} on {row.nodes}")
        where = view.supervisor_host or "the head node"
        text = f"the batch step on {where} has been silent for {view.supervisor_s_ago:.0f} s"
        return Verdict(State.STALLED, Cause.NODE_LOST, text)
    if row.life is Life.ENDED:
        return _by_end(view, row)
    return Verdict(State.UNKNOWN, None, f'the scheduler says "{row.state}"')


def _by_end(view: RunView, row: JobRow) -> Verdict:
    if row.state == "CANCELLED" and not row.never_satisfied:
        text = f"the scheduler says CANCELLED{row.by_whom}"
        return Verdict(State.CANCELLED, Cause.CANCELLED, text)
    if row.never_satisfied:
        return Verdict(State.STOPPED, Cause.PREPROCESS_FAILED, "dependency never satisfied")
    cause = {
        "TIMEOUT": Cause.TIME_LIMIT,
        "DEADLINE": Cause.TIME_LIMIT,
        "PREEMPTED": Cause.PREEMPTED,
        "NODE_FAIL": Cause.NODE_LOST,
        "OUT_OF_MEMORY": Cause.HOST_MEMORY,
    }.get(row.state, Cause.SCHEDULER)
    whose = f" of task {row.task}" if row.task else ""
    text = f"the scheduler says {row.state} {row.exit_code}".strip()
    return Verdict(State.STOPPED, cause, text + whose)


def _blind(view: RunView) -> Verdict:
    since = max(0.0, view.now - (view.history.updated or view.now))
    if view.supervisor_s_ago is not None:
        since = min(since, view.supervisor_s_ago)
    text = "the scheduler does not answer and the run has not written since"
    return Verdict(State.UNKNOWN, None, text, blind_since_s=since)
