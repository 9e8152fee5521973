"""One phase of one run in one job: its attempts, its lease, its heartbeat, its records."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from clusterlm.errors import RunError
from clusterlm.node.files import read_json, write_json
from clusterlm.node.records import ExitRecord
from clusterlm.node.secret_env import redactor_of
from clusterlm.paths import AttemptPaths, CachePaths, Phase, RunPaths
from clusterlm.spec.job import Job
from clusterlm.supervise import checkpoints, failure, judge, wiring
from clusterlm.supervise.allocation import Allocation
from clusterlm.supervise.attempt import Attempt
from clusterlm.supervise.causes import Cause
from clusterlm.supervise.history import read_history, record
from clusterlm.supervise.listener import Listener
from clusterlm.supervise.pulse import Pulse
from clusterlm.supervise.step import start_step
from clusterlm.supervise.task import end_all, ended_by_another, environment_of, tell_failure
from clusterlm.supervise.views import Action, AttemptView, Finding, Left, PastAttempt, Verdict
from clusterlm.weights.resized import key_of

TICK_S = 0.5


class Notes(Protocol):
    """What signals have said."""

    stop_reason: str | None
    terminated: bool


class PhaseRun:
    """Everything the supervisor does to the records of its phase: the run's, or those of a task."""

    def __init__(self, run: RunPaths, job: Job, phase: Phase, allocation: Allocation) -> None:
        self.run, self.job, self.phase, self.allocation = run, job, phase, allocation
        self.fingerprint: str | None = (read_json(run.lock) or {}).get("fingerprint")
        self.model_key = key_of(run)
        self.pulse = Pulse(run, phase, allocation)
        self._own_script = job.train.command is not None
        self._bad_hosts: set[str] = set()

    # -- the phase ---------------------------------------------------------------------------

    def begin(self) -> None:
        """Say that the phase runs here, and close what an abrupt end has left open."""
        history = read_history(self.run)
        if history.attempt_open and history.phase == self.phase:
            record(
                self.run,
                "attempt_ended",
                phase=self.phase,
                attempt=history.attempt,
                cause=Cause.PREEMPTED.name,
                action=Action.REQUEUE.value,
                evidence="the job was ended from outside before the attempt could say so",
                newest_step=self._newest_step(),
            )
        a = self.allocation
        record(
            self.run,
            "phase_started",
            phase=self.phase,
            job_id=a.job_id,
            restart=a.restart,
            nodes=list(a.hosts),
            host=a.head,
        )
        self.pulse.write("starting")

    def leave(self) -> None:
        """The heartbeat ends here on purpose; its age says nothing from now on."""
        if self.run.spec.exists():
            self.pulse.end()

    def end(self, verdict: Verdict) -> None:
        """Write the end of the run."""
        fields: dict[str, Any] = {
            "phase": self.phase,
            "state": verdict.state.value,
            "cause": verdict.cause.name if verdict.cause else None,
            **(_fields(verdict.finding) if verdict.finding else {}),
            "evidence": verdict.evidence,
        }
        fields = redactor_of(self.run.secrets).tree(fields)
        record(self.run, "ended", **fields)
        end_all(self.run, self.allocation.head, fields)

    def has_ended(self) -> bool:
        """Whether the end of the run is on record."""
        return read_history(self.run).end is not None

    def is_cancelled(self) -> bool:
        """Whether somebody asked for the end of the run, and nobody else waits for this phase."""
        is_asked = self.run.cancel.exists() and not self._others_wait()
        return is_asked or ended_by_another(self.run) is not None

    def pause(self, seconds: float, notes: Notes) -> None:
        """Wait before the next attempt; a cancel or a signal ends the wait."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.is_cancelled() and not notes.stop_reason:
            self.pulse.beat("retrying")
            time.sleep(0.2)

    # -- one attempt -------------------------------------------------------------------------

    def attempt(self, notes: Notes) -> Verdict:
        """Start an attempt, watch it to its end, record what it was and what follows."""
        past = self._past()
        paths = self._new_attempt()
        try:
            attempt = self._start(paths)
        except OSError as error:
            return self._close(paths, Finding(Cause.LAUNCH, str(error)), past)
        finding = self._watch(attempt, notes)
        attempt.end_now(finding.cause.words)
        return self._close(paths, finding, past)

    def _new_attempt(self) -> AttemptPaths:
        number = max(self.run.attempt_numbers(self.phase), default=0) + 1
        paths = self.run.attempt(self.phase, number)
        paths.make()
        latest = self.run.attempts(self.phase) / "latest"
        aside = latest.with_name(f".latest.{number}")
        aside.symlink_to(str(number))
        os.replace(aside, latest)
        self.pulse.attempt = number
        if self.phase == "train":
            fields = {"attempt": number, "job_id": self.allocation.job_id, "time": time.time()}
            write_json(self.run.lease, fields)
        return paths

    def _start(self, paths: AttemptPaths) -> Attempt:
        hosts = self._hosts()
        own = {"CLUSTERLM_ATTEMPT": str(paths.number), "CLUSTERLM_ATTEMPT_DIR": str(paths.root)}
        own |= environment_of(self.run, self.job.encode_tasks)
        if not self.allocation.is_slurm:
            own["CLUSTERLM_SUPERVISOR_PID"] = str(os.getpid())
        resume, listener = None, None
        if self.phase == "train":
            resume = checkpoints.resume_from(self.run.checkpoints, own_script=self._own_script)
            address, port = self._meeting_point(paths, hosts, resume)
            listener = Listener(address, port) if len(hosts) > 1 else None
            own |= {
                "CLUSTERLM_NODES": str(len(hosts)),
                "CLUSTERLM_MASTER_ADDR": address,
                "CLUSTERLM_MASTER_PORT": str(port),
                "CLUSTERLM_RESUME_FROM": str(resume or ""),
                "CLUSTERLM_BEAT_TO": listener.target if listener else "",
            }
        num_ranks = len(hosts) * self._ranks_per_node()
        record(
            self.run,
            "attempt_started",
            phase=self.phase,
            attempt=paths.number,
            nodes=hosts,
            ranks=num_ranks,
            resume_step=checkpoints.step_of(resume),
        )
        self.pulse.write("running")
        log = paths.logs / "step.log"
        is_slurm = self.allocation.is_slurm
        step = start_step(self.run, self.phase, hosts, log, own=own, is_slurm=is_slurm)
        return Attempt(paths, hosts, num_ranks, self.job.recovery, step, listener)

    def _meeting_point(
        self, paths: AttemptPaths, hosts: list[str], resume: Path | None
    ) -> tuple[str, int]:
        """Choose where the ranks meet, and write it down."""
        job_id = self.allocation.job_id
        address = wiring.head_address(hosts) if self.allocation.is_slurm else wiring.HERE
        port = wiring.free_port(address, job_id, paths.number, is_free=wiring.can_bind)
        fields = {
            "nodes": hosts,
            "master_addr": address,
            "master_port": port,
            "ranks_per_node": self._ranks_per_node(),
            "job_id": job_id,
            "resume_from": str(resume or ""),
        }
        write_json(paths.wiring, fields)
        return address, port

    def _watch(self, attempt: Attempt, notes: Notes) -> Finding:
        told: set[str] = set()
        while True:
            if notes.stop_reason:
                attempt.ask_to_stop(notes.stop_reason, "the scheduler")
            if self.is_cancelled():
                self._relay_cancel(attempt)
            if self.phase != "train" and attempt.stop_reason:
                self._end_now(attempt, "the data phase has nothing to save: it keeps what is done")
            if not self.run.spec.exists():
                attempt.step.end_now()
                raise RunError(f"{self.run.root} has been deleted")
            now = time.monotonic()
            view = attempt.view(now)
            self._tell(attempt, view, told)
            self.pulse.beat("running", attempt.silence())
            if finding := judge.judge_attempt(view):
                return finding
            time.sleep(TICK_S)

    def _relay_cancel(self, attempt: Attempt) -> None:
        request = ended_by_another(self.run) or read_json(self.run.cancel) or {}
        attempt.ask_to_stop("cancel", str(request.get("by", "clusterlm cancel")))
        if request.get("now"):
            self._end_now(attempt, "cancelled without a save")

    def _end_now(self, attempt: Attempt, why: str) -> None:
        if not attempt.paths.abort.exists():
            attempt.end_now(why)

    def _tell(self, attempt: Attempt, view: AttemptView, told: set[str]) -> None:
        """Write what was seen for the first time as events: readers show it within a second."""
        number = attempt.paths.number
        if attempt.stop_reason and "stop" not in told:
            told.add("stop")
            fields = {"phase": self.phase, "attempt": number, "reason": attempt.stop_reason}
            record(self.run, "stop_requested", **fields)
        failed = failure.root_failure(view.exits)
        is_new = "rank" not in told and not attempt.stop_reason
        if failed and is_new and failure.is_settled(view, failed):
            told.add("rank")
            record(
                self.run, "rank_failed", phase=self.phase, attempt=number, **_rank_fields(failed)
            )
        for host, silent_s in view.silent.items():
            if host not in told:
                told.add(host)
                fields = {"phase": self.phase, "attempt": number, "host": host}
                record(self.run, "node_lost", silent_s=round(silent_s), **fields)

    def _close(self, paths: AttemptPaths, finding: Finding, past: list[PastAttempt]) -> Verdict:
        self._bad_hosts.update(finding.bad_hosts)
        newest = self._newest_step()
        verdict = judge.decide(finding, past, self._left(newest))
        fields = {
            "phase": self.phase,
            "attempt": paths.number,
            "cause": finding.cause.name,
            "action": verdict.action.value if verdict.action else None,
            "newest_step": newest,
            **redactor_of(self.run.secrets).tree(_fields(finding)),
        }
        write_json(paths.exit, {**fields, "state": verdict.state.value, "time": time.time()})
        record(self.run, "attempt_ended", **fields)
        tell_failure(self.run, self.allocation.head, fields)
        self.pulse.write("between attempts")
        return verdict

    def _others_wait(self) -> bool:
        """Whether other runs wait for the data that this one began to prepare."""
        if self.phase == "train" or self.fingerprint is None:
            return False
        claim = read_json(CachePaths.of(self.fingerprint, self.model_key).claim) or {}
        return any(user != self.run.name for user in claim.get("users", []))

    # -- what is there -----------------------------------------------------------------------

    def _hosts(self) -> list[str]:
        healthy = [h for h in self.allocation.hosts if h not in self._bad_hosts]
        return healthy[: self.job.resources.nodes if self.phase == "train" else 1]

    def _left(self, newest: int | None) -> Left:
        wanted = self.job.resources.nodes if self.phase == "train" else 1
        healthy = sum(h not in self._bad_hosts for h in self.allocation.hosts)
        return Left(
            healthy_nodes=healthy,
            wanted_nodes=wanted,
            least_nodes=min(wanted, self.job.recovery.min_nodes or wanted),
            may_requeue=self.allocation.is_slurm and self.job.recovery.requeue,
            newest_step=newest,
            max_without_progress=self.job.recovery.max_attempts_without_progress,
        )

    def _past(self) -> list[PastAttempt]:
        return [
            PastAttempt(Cause[e["cause"]], e.get("newest_step"))
            for e in read_history(self.run).attempts_of(self.phase)
        ]

    def _newest_step(self) -> int | None:
        return checkpoints.newest_step(self.run.checkpoints, own_script=self._own_script)

    def _ranks_per_node(self) -> int:
        return self.job.resources.ranks_per_node if self.phase == "train" else 1


def _fields(finding: Finding) -> dict[str, Any]:
    fields = asdict(finding)
    del fields["cause"]
    return fields


def _rank_fields(failed: ExitRecord) -> dict[str, Any]:
    return {
        "rank": failed.rank,
        "host": failed.host,
        "code": failed.code,
        "signal": failed.signal,
        "error": failed.error,
        "out_of_memory": failed.out_of_memory,
    }
