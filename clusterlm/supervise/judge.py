"""Decides, in one place and from values only, why an attempt has ended and what happens next.

    judge_attempt(AttemptView)          -> Finding | None    has this attempt ended, and why?
    decide(Finding, past, Left)         -> Verdict           what to do about it

Pure: exit records, heartbeats and the clock come in as values. A verdict quotes its evidence. What
`status` shows of a run is decided in `judge_run.py`, from the records and the scheduler's word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from clusterlm.node.codes import EXIT_FENCED, EXIT_RESUME
from clusterlm.node.records import ExitRecord
from clusterlm.supervise.causes import Cause, Restart, State, cause_of_error
from clusterlm.supervise.failure import end_words, is_settled, root_failure
from clusterlm.supervise.image_failure import judge_image
from clusterlm.supervise.views import (
    Action,
    AttemptView,
    Finding,
    Left,
    PastAttempt,
    Verdict,
)

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
        if exit_.out_of_memory:
            cause = Cause.HOST_MEMORY
        elif cause not in (Cause.HOST_MEMORY, Cause.GPU_FAULT):
            cause = Cause.RANK_KILLED
    return Finding(
        cause,
        f"rank {exit_.rank} on {exit_.host} {end_words(exit_.to_dict())}",
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
    is_settled_now = cause.restart is Restart.NEVER or barren == left.max_without_progress == 1
    if is_settled_now or (cause.restart is Restart.ONCE and _seen(past, cause)):
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
