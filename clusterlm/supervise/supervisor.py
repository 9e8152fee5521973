"""The batch step: runs a phase as a loop of attempts. observe -> judge -> act.

submitit pickles it, so it holds strings only and its pickle does not depend on versions. It runs on
the host, where srun and scontrol are. The loop alone acts: signal handlers only leave a note.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from submitit.helpers import DelayedSubmission

from clusterlm.data.whole import why_not_ready
from clusterlm.node.room import room_at
from clusterlm.paths import CachePaths, Phase, RunPaths
from clusterlm.spec.job import Job
from clusterlm.supervise.allocation import job_is_running, read_allocation
from clusterlm.supervise.causes import Cause, State
from clusterlm.supervise.history import record
from clusterlm.supervise.phase_run import PhaseRun
from clusterlm.supervise.predecessor import wait_for_data
from clusterlm.supervise.task import records_of
from clusterlm.supervise.views import Action, Finding, Verdict

RETRY_DELAYS_S = (1.0, 5.0, 15.0, 30.0)


class Supervisor:
    """The callable that submitit runs as the batch step of one phase."""

    def __init__(self, run_dir: str, phase: Phase, after_pid: str = "") -> None:
        self.run_dir = run_dir
        self.phase = phase
        self.after_pid = after_pid
        """Local only: `pid@start time` of what prepares the data; Slurm has --dependency."""

    def checkpoint(self) -> DelayedSubmission:
        """Give submitit, before a requeue, what starts the phase again: the same strings."""
        return DelayedSubmission(Supervisor(self.run_dir, self.phase, self.after_pid))

    def __call__(self) -> str:
        """Run the phase to its end.

        Returns:
            "done". Every other end leaves by SystemExit: 1, or submitit's exit after a requeue.
        """
        run = RunPaths(Path(self.run_dir))
        job = Job.model_validate_json(run.spec.read_text())
        notes = _Notes()
        allocation = read_allocation(os.environ)
        phase = PhaseRun(records_of(run, allocation), job, self.phase, allocation)
        if self.after_pid and phase.fingerprint:
            # a data phase waits for another one that has begun the same data
            with_model = self.phase == "train"
            cache = CachePaths.of(phase.fingerprint, phase.model_key)
            wait_for_data(cache, self.after_pid, phase.is_cancelled, with_model=with_model)
            if phase.has_ended():
                # the data phase, or a cancel, has written the end of the run
                sys.exit(1)
        try:
            phase.begin()
            verdict = self._gate(phase) or self._attempts(phase, notes)
            self._conclude(phase, verdict, notes)
        except Exception as error:
            # a full disk, a vanished folder, a bug: the run must not look alive for ever
            text = f"{type(error).__name__}: {error}"
            is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            room = room_at(run.root) if is_full else None
            cause = Cause.DISK_FULL if is_full else Cause.SUPERVISOR
            text += f"; {room.words}" if room else ""
            phase.end(_verdict(State.STOPPED, cause, text, Action.STOP))
            raise
        finally:
            phase.leave()
        return "done"

    def _gate(self, phase: PhaseRun) -> Verdict | None:
        """Ask before anything is started whether the data is there: a purged `afterok` passes."""
        if phase.fingerprint is None:
            return None
        # tasks encode, and leave the model to the job behind them
        model = None if self.phase == "encode" else phase.model_key
        fault = why_not_ready(CachePaths.of(phase.fingerprint, model))
        is_ready = fault is None
        if self.phase != "train":
            text = "the data was there already"
            return _verdict(State.DONE, Cause.DONE, text, Action.FINISH) if is_ready else None
        if is_ready or phase.is_cancelled():
            return None
        return _verdict(State.STOPPED, Cause.DATA_NOT_READY, str(fault), Action.STOP)

    def _attempts(self, phase: PhaseRun, notes: _Notes) -> Verdict:
        barren = 0
        while True:
            if phase.is_cancelled():
                return _verdict(State.CANCELLED, Cause.CANCELLED, "cancelled", Action.STOP)
            verdict = phase.attempt(notes)
            if verdict.action is not Action.RETRY or notes.terminated:
                return verdict
            phase.pause(RETRY_DELAYS_S[min(barren, len(RETRY_DELAYS_S) - 1)], notes)
            barren += 1

    def _conclude(self, phase: PhaseRun, verdict: Verdict, notes: _Notes) -> None:
        if verdict.action is Action.FINISH:
            record(phase.run, "phase_done", phase=self.phase)
            if self.phase == "train":
                phase.end(verdict)
            return
        if verdict.cause is Cause.FENCED:
            print("a newer attempt holds this run; leaving it alone", flush=True)
            sys.exit(1)
        if notes.terminated and verdict.state is not State.CANCELLED:
            # The scheduler is ending this job. It alone knows whether to start it again: a requeue
            # from here would revive a job that somebody has cancelled.
            print("the scheduler is ending this job; leaving the rest to it", flush=True)
            sys.exit(1)
        if verdict.action is Action.REQUEUE:
            self._requeue(phase, verdict, notes)
        phase.end(verdict)
        sys.exit(1)

    def _requeue(self, phase: PhaseRun, verdict: Verdict, notes: _Notes) -> None:
        if phase.allocation.is_slurm and not _still_running(phase.allocation.job_id):
            print("the job is no longer running for Slurm: not requeued", flush=True)
            sys.exit(1)
        cause = verdict.cause.name if verdict.cause else None
        record(phase.run, "requeued", phase=self.phase, job_id=phase.allocation.job_id, cause=cause)
        phase.leave()
        # submitit: checkpoint() -> new pickle -> scontrol requeue -> exit
        notes.requeue_by_submitit()


def _still_running(job_id: str) -> bool:
    for _ in range(12):
        known = job_is_running(job_id)
        if known is not None:
            return known
        time.sleep(10)
    return False


def _verdict(state: State, cause: Cause, evidence: str, action: Action) -> Verdict:
    return Verdict(state, cause, evidence, action, Finding(cause, evidence))


class _Notes:
    """What signals have said. submitit's own handler for USR2 is kept for the requeue."""

    def __init__(self) -> None:
        self.stop_reason: str | None = None
        self.terminated = False
        self._submitit = signal.getsignal(signal.SIGUSR2)
        signal.signal(signal.SIGUSR2, self._time_limit)
        signal.signal(signal.SIGTERM, self._terminate)

    def _time_limit(self, number: int, frame: FrameType | None) -> None:
        self.stop_reason = self.stop_reason or "time_limit"

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self.stop_reason = self.stop_reason or "preempted"
        self.terminated = True

    def requeue_by_submitit(self) -> None:
        handler: Any = self._submitit
        handler(signal.SIGUSR2, None)
