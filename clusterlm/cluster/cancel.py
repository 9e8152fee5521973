"""End a run: first ask it to save, then take its jobs away. Saying it twice changes nothing."""

from __future__ import annotations

import getpass
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from clusterlm.cluster import claims
from clusterlm.cluster.event_words import cut
from clusterlm.cluster.host import Host
from clusterlm.cluster.log_text import readable_line
from clusterlm.cluster.slurm import scancel
from clusterlm.errors import SlurmError
from clusterlm.node import seal
from clusterlm.node.files import read_json, write_json
from clusterlm.paths import CachePaths, RunPaths
from clusterlm.spec.job import LOCAL, Job
from clusterlm.supervise.allocation import process_lives
from clusterlm.supervise.causes import Cause, State
from clusterlm.supervise.checkpoints import step_of
from clusterlm.supervise.history import History, JobRef, read_history, record
from clusterlm.weights.resized import key_of

POLL_S = 0.3
_IN_ORDER = {c.name for c in (Cause.CANCELLED, Cause.TIME_LIMIT, Cause.PREEMPTED)}
"""Ends of an attempt that was asked to stop and did."""


@dataclass(frozen=True)
class Cancelled:
    """What a cancel did."""

    was_over: bool
    """The run had ended before."""
    saved_step: int | None = None
    """Step of a checkpoint that was made after the request."""
    newest_step: int | None = None
    """Newest checkpoint, whenever it was made."""
    trouble: str = ""
    """How the attempt ended that was asked to save, when that was not in order."""
    was_done: bool = False
    """The training came to its end before it saw the request."""
    kept_preprocess_for: tuple[str, ...] = ()
    """Other runs that wait for the same data."""

    @property
    def words(self) -> str:
        """What became of the run, to stand behind its name."""
        if self.was_done:
            return "came to its end before it saw the request: it is DONE"
        why = f": {self.trouble}" if self.trouble else ""
        if self.saved_step is not None:
            then = f", then failed{why}" if why else " and ended"
            return f"saved step {self.saved_step}{then}"
        newest = f"; the newest checkpoint is step {self.newest_step}"
        how = f"ended, but the save failed{why}" if why else "ended"
        return how + (newest if self.newest_step is not None else "")


def cancel(
    run: RunPaths,
    host: Host,
    *,
    now: bool = False,
    is_running: Callable[[], bool],
    tell: Callable[[str], None],
) -> Cancelled:
    """Cancel the whole chain of a run.

    Args:
        run: the run.
        host: where scancel is.
        now: do not ask it to save.
        is_running: whether a supervisor is alive that can obey a request.
        tell: gets one line per step for the user.
    """
    history = read_history(run)
    if history.end is not None:
        return Cancelled(was_over=True)
    job = _job_of(run)
    before = _newest_step(run, job)
    who = getpass.getuser()
    if history.cancel_requested is None:
        record(run, "cancel_requested", by=who, now=now)
    write_json(run.cancel, {"by": who, "now": now, "time": time.time()})
    others = _leave_claim(run, history)
    jobs = [j for j in history.jobs.values() if not (j.phase != "train" and others)]
    # what others wait for goes on: there is nobody to ask
    if not others and is_running():
        grace_s = 10.0 if now else _grace_s(job)
        what = "end" if now else "save and end; --now does not wait for a save"
        tell(f"asking {run.name} to {what} (up to {grace_s:.0f} s)")
        _wait_for_end(run, grace_s)
    _take_away(jobs, history, host)
    if read_history(run).end is None:
        cause = Cause.CANCELLED.name
        record(run, "ended", state=State.CANCELLED.value, cause=cause, evidence=f"by {who}")
    done = _what_became(history, read_history(run), before, _newest_step(run, job))
    if now:
        # nobody asked it to save
        done = replace(done, saved_step=None, trouble="")
    return replace(done, kept_preprocess_for=tuple(others))


def _what_became(
    asked: History, ended: History, before: int | None, after: int | None
) -> Cancelled:
    """Read off the records what the request has brought about. Pure.

    Args:
        asked: the history at the request.
        ended: the history at the end.
        before: newest checkpoint at the request; by steps and not by time, as clocks differ.
        after: newest checkpoint now.
    """
    if (ended.end or {}).get("state") == State.DONE.value:
        return Cancelled(was_over=False, newest_step=after, was_done=True)
    last = next((e for e in ended.ends[len(asked.ends) :][::-1] if e.get("phase") == "train"), None)
    trouble = ""
    if last is not None and last.get("cause") not in _IN_ORDER:
        # errors come from logs: nothing in them may reach the terminal as a command
        trouble = cut(readable_line(str(last.get("evidence") or last.get("cause"))))
    if last is not None:
        # what is not sealed counts as whole only when nothing went wrong; and the supervisor may
        # see what this machine's view of a shared folder does not show yet
        steps = (last.get("newest_step"), None if trouble else after)
        after = max((step for step in steps if step is not None), default=None)
    is_new = last is not None and after is not None and (before is None or after > before)
    return Cancelled(
        was_over=False, saved_step=after if is_new else None, newest_step=after, trouble=trouble
    )


def _leave_claim(run: RunPaths, history: History) -> list[str]:
    job = history.jobs.get("preprocess")
    fingerprint = _fingerprint(run)
    if job is None or fingerprint is None or "preprocess" in history.done_phases:
        return []
    others = claims.leave(CachePaths.of(fingerprint, key_of(run)), run.name)
    # another run's job is never ours to cancel, whoever waits for it
    return others or ([job.owner] if job.owner != run.name else [])


def _fingerprint(run: RunPaths) -> str | None:
    value = (read_json(run.lock) or {}).get("fingerprint")
    return str(value) if value else None


def _job_of(run: RunPaths) -> Job | None:
    try:
        return Job.model_validate_json(run.spec.read_text())
    except (OSError, ValueError):
        return None


def _newest_step(run: RunPaths, job: Job | None) -> int | None:
    own_script = job is not None and job.train.command is not None
    sealed = seal.newest_step(run.checkpoints)
    if sealed is None and own_script:
        # at once, however fresh: at the end of a run nobody writes any more
        return step_of(seal.newest_unsealed(run.checkpoints, now=math.inf))
    return sealed


def _grace_s(job: Job | None) -> float:
    return job.recovery.stop_grace + 15.0 if job else 60.0


def _wait_for_end(run: RunPaths, limit_s: float) -> bool:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if read_history(run).end is not None:
            return True
        time.sleep(POLL_S)
    return False


def _take_away(jobs: list[JobRef], history: History, host: Host) -> None:
    if history.cluster == LOCAL:
        for job in jobs:
            _end_process(job)
    elif jobs:
        try:
            scancel(host, [job.job_id for job in jobs])
        except SlurmError as error:
            raise SlurmError(
                f"{error}\n  its jobs may live on: the same cancel again, when Slurm answers"
            ) from error


def _end_process(job: JobRef) -> None:
    """End a local controller that did not end by itself; its supervisor goes with it."""
    pid = int(job.job_id)
    for number, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 2.0)):
        if not process_lives(pid, job.pid_started):
            return
        os.kill(pid, number)
        until = time.monotonic() + patience_s
        while time.monotonic() < until and process_lives(pid, job.pid_started):
            time.sleep(0.1)
