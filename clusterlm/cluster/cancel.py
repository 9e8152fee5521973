"""End a run: first ask it to save, then take its jobs away. Saying it twice changes nothing."""

from __future__ import annotations

import getpass
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from clusterlm.cluster import claims
from clusterlm.cluster.host import Host
from clusterlm.cluster.slurm import scancel
from clusterlm.errors import SlurmError
from clusterlm.node.files import read_json, write_json
from clusterlm.paths import CachePaths, RunPaths
from clusterlm.spec.job import LOCAL, Job
from clusterlm.supervise.allocation import process_lives
from clusterlm.supervise.causes import Cause, State
from clusterlm.supervise.history import History, JobRef, read_history, record

POLL_S = 0.3


@dataclass(frozen=True)
class Cancelled:
    """What a cancel did."""

    was_over: bool
    """The run had ended before."""
    saved_step: int | None
    """Newest checkpoint, when the run ended by itself after the request."""
    kept_preprocess_for: tuple[str, ...] = ()
    """Other runs that wait for the same data."""


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
        return Cancelled(was_over=True, saved_step=None)
    who = getpass.getuser()
    if history.cancel_requested is None:
        record(run, "cancel_requested", by=who, now=now)
    write_json(run.cancel, {"by": who, "now": now, "time": time.time()})
    others = _leave_claim(run, history)
    jobs = [j for j in history.jobs.values() if not (j.phase == "preprocess" and others)]
    saved = False
    if is_running():
        grace_s = 10.0 if now else _grace_s(run)
        what = "end" if now else "save and end; --now does not wait for a save"
        tell(f"asking {run.name} to {what} (up to {grace_s:.0f} s)")
        saved = _wait_for_end(run, grace_s) and not now
    _take_away(jobs, history, host)
    if read_history(run).end is None:
        cause = Cause.CANCELLED.name
        record(run, "ended", state=State.CANCELLED.value, cause=cause, evidence=f"by {who}")
    last = read_history(run).last_end or {}
    step = last.get("newest_step") if saved else None
    return Cancelled(was_over=False, saved_step=step, kept_preprocess_for=tuple(others))


def _leave_claim(run: RunPaths, history: History) -> list[str]:
    job = history.jobs.get("preprocess")
    fingerprint = _fingerprint(run)
    if job is None or fingerprint is None or "preprocess" in history.done_phases:
        return []
    others = claims.leave(CachePaths.of(fingerprint), run.name)
    # another run's job is never ours to cancel, whoever waits for it
    return others or ([job.owner] if job.owner != run.name else [])


def _fingerprint(run: RunPaths) -> str | None:
    value = (read_json(run.lock) or {}).get("fingerprint")
    return str(value) if value else None


def _grace_s(run: RunPaths) -> float:
    try:
        job = Job.model_validate_json(run.spec.read_text())
    except (OSError, ValueError):
        return 60.0
    return job.recovery.stop_grace + 15.0


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
