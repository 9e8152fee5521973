"""Decides, in one place and from values only, what a run's state is and what happens next.

    judge_attempt(AttemptView)          -> Finding | None    has this attempt ended, and why?
    decide(Finding, past, Left)         -> Verdict           what to do about it
    judge_run(RunView)                  -> Verdict           what `status` shows

Pure: exit records, heartbeats, Slurm's row and the clock come in as values. A verdict quotes its
evidence. Being blind (no fresh record and no answer from the scheduler) is UNKNOWN, never failed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from clusterlm.node.codes import EXIT_FENCED, EXIT_RESUME
from clusterlm.node.records import ExitRecord
from clusterlm.supervise.causes import Cause, Restart, State, cause_of_error
from clusterlm.supervise.failure import is_settled, root_failure
from clusterlm.supervise.history import History
from clusterlm.supervise.image_failure import judge_image
from clusterlm.supervise.slurm_states import JobRow, Life
from clusterlm.supervise.views import (
    Action,
    AttemptView,
    Finding,
    Left,
    PastAttempt,
    RunView,
    Verdict,
)

SILENT_SUPERVISOR_S = 45.0
"""The batch step writes every 5 s; nine missed ones are no hiccup of a shared file system."""
SUBMIT_TAKES_S = 60.0
"""From the first event of a run to the id of its job; sbatch may wait for a busy controller."""

STEP_LAG_S = 10.0
"""Progress is written once a second and seen some moments later; a step so late is a new one."""

# srun's word on the first task that ended badly, that is on a node's agent
_BROKEN_TASK = re.compile(r"^srun: error: (\S+): tasks? \d+: (?:Killed|Exited with .*)$", re.M)


def judge_attempt(view: AttemptView) -> Finding | None:
    """Why the attempt is over, or None while it goes on.

    Asked in this order: an image that did not start, the earliest failure of a rank, a stop that
    was obeyed, a silent node, a hang, the step's end. So the first truth is told, not the loudest.
    """
    if finding := judge_image(view):
        return finding
    failure = root_failure(view.exits)
    if failure is not None and not _ended_by_request(view, failure):
        return _of_rank(failure, view.step_tail) if is_settled(view, failure) else None
    if view.step_code is not None:
        return _of_step(view)
    if view.silent and not _steps_go_on(view):
        host, silent_s = max(view.silent.items(), key=lambda item: item[1])
        text = f"no heartbeat from {host} for {silent_s:.0f} s"
        return Finding(Cause.NODE_LOST, text, host=host, bad_hosts=(host,))
    if view.stop_reason:
        return None
    if view.ranks_seen == 0 and view.started_s_ago > view.startup_timeout_s:
        return Finding(Cause.STARTUP, f"no rank had started after {view.started_s_ago:.0f} s")
    limit = view.hang_after_s or max(600.0, 20 * (view.usual_step_s or 0.0))
    if view.step_s_ago is not None and view.step_s_ago > limit:
        return Finding(Cause.HANG, f"the step has not changed for {view.step_s_ago:.0f} s")
    return None


def _steps_go_on(view: AttemptView) -> bool:
    """A step made after the silence began is proof of life of every node: all took part in it.

    Also when the next one is not due yet: long steps, and only the heartbeat's network is down.
    """
    if view.step_s_ago is None:
        return False
    is_newer = view.step_s_ago < min(view.silent.values()) - STEP_LAG_S
    return is_newer or view.step_s_ago < 2 * (view.usual_step_s or 0.0)


def _ended_by_request(view: AttemptView, failure: ExitRecord) -> bool:
    # after a stop request a rank that had no time to save is ended by force: not its own failure
    return view.stop_reason is not None and (
        failure.ended_by is not None or failure.signal in ("SIGTERM", "SIGKILL")
    )


def _of_rank(exit_: ExitRecord, step_tail: str) -> Finding:
    text = "\n".join(t for t in (exit_.error, exit_.traceback) if t)
    cause = cause_of_error(text) if text else Cause.RANK_FAILED
    if exit_.code == EXIT_FENCED:
        cause = Cause.FENCED
    if exit_.signal:
        cause = cause_of_error(step_tail) if exit_.signal == "SIGKILL" else cause
        if cause not in (Cause.HOST_MEMORY, Cause.GPU_FAULT):
            cause = Cause.RANK_KILLED
    end = f"was ended by {exit_.signal}" if exit_.signal else f"exited {exit_.code}"
    evidence = f"rank {exit_.rank} on {exit_.host} {end}"
    return Finding(
        cause,
        f"{evidence}: {exit_.error}" if exit_.error else evidence,
        rank=exit_.rank,
        host=exit_.host,
        code=exit_.code,
        signal=exit_.signal,
        error=exit_.error,
    )


def _of_step(view: AttemptView) -> Finding:
    ended = len(view.exits)
    saved = ended > 0 and all(e.code == EXIT_RESUME for e in view.exits)
    broken = _BROKEN_TASK.search(view.step_tail)
    if view.stop_reason == "preempted" and broken and "DUE TO" not in view.step_tail:
        # an agent took srun's clearing up after another node for preemption, and had its ranks save
        text = f"the agent on {broken[1]} was lost ({broken[0].strip()})"
        return Finding(Cause.RANK_KILLED, text, host=broken[1])
    if view.stop_reason and (saved or view.step_code != 0 or ended < view.expected_ranks):
        cause = {
            "cancel": Cause.CANCELLED,
            "time_limit": Cause.TIME_LIMIT,
        }.get(view.stop_reason, Cause.PREEMPTED)
        how = "ended in order" if saved else "ended without a save"
        return Finding(cause, f"{how} after the stop request ({view.stop_reason})")
    if saved:
        return Finding(Cause.PREEMPTED, "every rank saved and asked to be resumed (exit 85)")
    if view.step_code == 0 and ended >= view.expected_ranks:
        return Finding(Cause.DONE, "every rank exited 0", code=0)
    tail = view.step_tail.strip().splitlines()
    last = tail[-1][:300] if tail else f"the step exited {view.step_code} and printed nothing"
    cause = cause_of_error(view.step_tail)
    if cause in (Cause.RANK_FAILED, Cause.NETWORK):
        cause = Cause.LAUNCH if ended == 0 else Cause.RANK_FAILED
    return Finding(cause, last, code=view.step_code, error=last)


def decide(finding: Finding, past: Sequence[PastAttempt], left: Left) -> Verdict:
    """What follows from the end of an attempt.

    The cheapest thing that helps: a new attempt in this allocation, then the queue, then stop and
    tell. Retries are free while the newest verified checkpoint advances.

    Args:
        finding: why the attempt ended.
        past: earlier attempts of the phase, oldest first, without this one.
        left: nodes and checkpoints to go on with.
    """
    cause = finding.cause
    if cause is Cause.DONE:
        return Verdict(State.DONE, cause, finding.evidence, Action.FINISH, finding)
    if cause is Cause.CANCELLED:
        return Verdict(State.CANCELLED, cause, finding.evidence, Action.STOP, finding)
    if cause.restart is Restart.FREE:
        if left.may_requeue:
            return Verdict(State.PENDING, cause, finding.evidence, Action.REQUEUE, finding)
        return Verdict(State.STOPPED, cause, finding.evidence, Action.STOP, finding)
    barren = _attempts_without_progress(past, left.newest_step)
    if cause.restart is Restart.NEVER or (cause.restart is Restart.ONCE and _seen(past, cause)):
        return Verdict(State.STOPPED, cause, finding.evidence, Action.STOP, finding)
    if barren >= left.max_without_progress:
        evidence = f"{barren} attempts without a newer checkpoint; the last: {finding.evidence}"
        return Verdict(State.STOPPED, Cause.NO_PROGRESS, evidence, Action.STOP, finding)
    if left.healthy_nodes >= min(left.wanted_nodes, left.least_nodes):
        return Verdict(State.RETRYING, cause, finding.evidence, Action.RETRY, finding)
    if left.may_requeue:
        return Verdict(State.PENDING, cause, finding.evidence, Action.REQUEUE, finding)
    return Verdict(State.STOPPED, cause, finding.evidence, Action.STOP, finding)


def _seen(past: Sequence[PastAttempt], cause: Cause) -> bool:
    return bool(past) and past[-1].cause is cause


def _attempts_without_progress(past: Sequence[PastAttempt], newest: int | None) -> int:
    """Attempts in a row, this one included, that charged and left no newer checkpoint."""
    count = 1
    best = newest if newest is not None else -1
    earlier = [-1, *(p.newest_step if p.newest_step is not None else -1 for p in past)]
    if best > earlier[-1]:
        return 0
    # steps [-1, 50, 50] and now 50 -> the second past attempt and this one were barren
    for index in range(len(past) - 1, -1, -1):
        if past[index].cause.restart is Restart.FREE:
            continue
        if earlier[index + 1] > earlier[index]:
            break
        count += 1
    return count


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
    end = event.get("signal") or f"exit {event.get('code')}"
    return f"rank {event.get('rank')} on {event.get('host')} failed ({end}): {event.get('error')}"


def _by_row(view: RunView, row: JobRow) -> Verdict:
    h = view.history
    if row.life is Life.WAITING:
        why = row.reason_words
        if h.requeued and h.last_end is not None:
            why = f"requeued after: {_words_of(h.last_end)}" + (f"; {why}" if why else "")
        return Verdict(State.PENDING, None, why)
    if row.life is Life.RUNNING:
        if view.row_phase == "preprocess":
            return Verdict(State.PREPROCESSING, None, f"in job {row.job_id} on {row.nodes}")
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
    return Verdict(State.STOPPED, cause, f"the scheduler says {row.state} {row.exit_code}".strip())


def _blind(view: RunView) -> Verdict:
    since = max(0.0, view.now - (view.history.updated or view.now))
    if view.supervisor_s_ago is not None:
        since = min(since, view.supervisor_s_ago)
    text = "the scheduler does not answer and the run has not written since"
    return Verdict(State.UNKNOWN, None, text, blind_since_s=since)
