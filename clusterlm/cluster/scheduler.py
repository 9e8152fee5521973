"""The look at the scheduler that all readers share: one call for all jobs, backed off.

    view = SchedulerView(runs_dir, LocalHost())
    seen = view.look(jobs)["1234"]        seen.row, seen.source, seen.age_s, seen.is_blind

squeue is asked first; sacct for jobs that squeue no longer knows, or when squeue does not answer.
Both away is no error: blind, with the age of what was last known. A job of `cluster: local` is a
process of its host.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from clusterlm.cluster.answers import WINDOW_S, Answers, AnswersFile
from clusterlm.cluster.host import Host
from clusterlm.cluster.slurm import CLIENT_TIMEOUT_S, ask_sacct, ask_squeue
from clusterlm.errors import SlurmUnreachable
from clusterlm.supervise.history import JobRef
from clusterlm.supervise.slurm_states import JobRow, Life

LOCAL = "local"
BLIND_AFTER_S = 60.0
"""While the scheduler does not answer, what it said last is good for so long."""
SAME_SUBMIT_S = 300.0
"""Clocks of a login node and of the controller differ by less: munge refuses more."""
_GOES_ON = ("REQUEUED", "RESIZING", "NODE_FAIL", "PREEMPTED")


@dataclass(frozen=True)
class Seen:
    """What is known of one job."""

    row: JobRow | None
    """None: it is gone, or (when blind) nothing was ever known."""
    source: str
    """squeue, sacct, process; empty when nobody was asked yet."""
    age_s: float | None
    is_blind: bool = False
    trouble: str = ""
    """Why there is no fresh answer."""


NOT_ASKED = Seen(None, "", None, is_blind=True, trouble="the scheduler has not been asked yet")


class SchedulerView:
    """One reader's eyes. `look` may wait for the scheduler; `glance` never does."""

    def __init__(
        self,
        runs_dir: Path,
        host: Host,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._host, self._clock, self._sleep = host, clock, sleep
        self._file = AnswersFile(runs_dir)
        self._own = Answers()
        self._asking: threading.Thread | None = None

    def look(self, jobs: Iterable[JobRef], *, max_age_s: float | None = None) -> dict[str, Seen]:
        """What is known of `jobs`, by job id; asks the scheduler when that is due.

        Args:
            jobs: of any cluster; one call serves them all.
            max_age_s: for a command that looks once: ask unless the answers are younger.
        """
        jobs = list(jobs)
        answers = self._remembered()
        if answers.is_due(_slurm_ids(jobs), self._clock(), max_age_s):
            answers = self._ask(jobs, max_age_s)
        else:
            self._tell_wishes(jobs, answers)
        return self._read(jobs, answers)

    def glance(self, jobs: Iterable[JobRef]) -> dict[str, Seen]:
        """As `look`, without waiting: the scheduler is asked beside, the answer shows next time."""
        jobs = list(jobs)
        answers = self._remembered()
        is_busy = self._asking is not None and self._asking.is_alive()
        if not is_busy and answers.is_due(_slurm_ids(jobs), self._clock(), None):
            # a daemon: Ctrl-C must not wait for a controller that is down
            self._asking = threading.Thread(target=self._ask, args=(jobs, None), daemon=True)
            self._asking.start()
        elif not is_busy:
            self._tell_wishes(jobs, answers)
        return self._read(jobs, answers)

    def _tell_wishes(self, jobs: Sequence[JobRef], answers: Answers) -> None:
        """Let whoever asks next ask for our jobs too."""
        ids = _slurm_ids(jobs)
        if not answers.must_be_told(ids, self._clock()):
            return
        with self._file.claimed() as is_ours:
            if is_ours:
                newest = self._remembered()
                newest.want(ids, self._clock())
                self._file.write(newest)

    def _remembered(self) -> Answers:
        shared = self._file.read(self._clock())
        return shared if shared.asked >= self._own.asked else self._own

    def _ask(self, jobs: Sequence[JobRef], max_age_s: float | None) -> Answers:
        ids = _slurm_ids(jobs)
        patience_s = 2 * CLIENT_TIMEOUT_S
        while True:
            with self._file.claimed() as is_ours:
                answers = self._remembered()
                # somebody may have asked between our look at the file and the claim
                due = answers.is_due(ids, self._clock(), max_age_s)
                if is_ours:
                    return self._ask_now(jobs, answers, max_age_s is not None) if due else answers
            if max_age_s is None or not due or patience_s <= 0:
                return answers
            self._sleep(0.1)
            patience_s -= 0.1

    def _ask_now(self, jobs: Sequence[JobRef], answers: Answers, is_fresh: bool) -> Answers:
        now = self._clock()
        wanted = answers.want(_slurm_ids(jobs), now)
        answers.asked = now
        unknown = self._ask_squeue(wanted, answers, now)
        unknown += [j.job_id for j in jobs if j.job_id not in unknown and self._is_lost(j, answers)]
        rarely = answers.trouble and now - answers.sacct_asked < WINDOW_S
        if unknown and not (rarely and not is_fresh) and answers.may_call(now, fresh=is_fresh):
            self._ask_sacct(unknown, answers, now)
        self._own = answers
        self._file.write(answers)
        return answers

    def _ask_squeue(self, wanted: list[str], answers: Answers, now: float) -> list[str]:
        """Ask for all; gives the jobs that squeue does not know, all of them when it is away."""
        answers.count_call(now)
        try:
            rows = ask_squeue(self._host, wanted)
        except (SlurmUnreachable, OSError) as error:
            answers.trouble = str(error)
            answers.failing_since = answers.failing_since or now
            return list(wanted)
        if answers.failing_since is not None:
            answers.level = 0
        answers.trouble, answers.failing_since = "", None
        answers.take(wanted, "squeue", rows, self._clock())
        return [job for job in wanted if job not in rows]

    def _ask_sacct(self, unknown: list[str], answers: Answers, now: float) -> None:
        answers.count_call(now)
        answers.sacct_asked = now
        try:
            rows = ask_sacct(self._host, unknown)
        except (SlurmUnreachable, OSError):
            # squeue alone: what it does not know is gone; when it is away too, we are blind
            return
        known = [job for job in unknown if rows.get(job)]
        answers.take(known, "sacct", rows, self._clock())

    def _is_lost(self, job: JobRef, answers: Answers) -> bool:
        """The id belongs to another job now: only the database still knows ours."""
        answer = answers.by_job.get(job.job_id)
        return (
            job.cluster != LOCAL
            and answer is not None
            and answer.source == "squeue"
            and own_row(job, answer.rows) is None
        )

    def _read(self, jobs: Sequence[JobRef], answers: Answers) -> dict[str, Seen]:
        now = self._clock()
        return {
            job.job_id: see_process(job) if job.cluster == LOCAL else _seen(job, answers, now)
            for job in jobs
        }


def _slurm_ids(jobs: Iterable[JobRef]) -> list[str]:
    # ids come from files: what is no number must not reach a command line
    return [j.job_id for j in jobs if j.cluster != LOCAL and j.job_id.isdecimal()]


def _seen(job: JobRef, answers: Answers, now: float) -> Seen:
    answer = answers.by_job.get(job.job_id)
    if answer is None:
        return replace(NOT_ASKED, trouble=answers.trouble or NOT_ASKED.trouble)
    age_s = max(0.0, now - answer.time)
    row = own_row(job, answer.rows)
    is_blind = bool(answers.trouble) and age_s > BLIND_AFTER_S and not answer.is_settled
    return Seen(row, answer.source, age_s, is_blind, answers.trouble)


def own_row(job: JobRef, rows: Sequence[JobRow]) -> JobRow | None:
    """The newest row that is this very job: Slurm uses an id again, and a requeue moves SubmitTime.

    A row counts when it was submitted when we submitted, when it says that it was restarted, or
    when it follows a row of ours that was to go on (REQUEUED, RESIZING, ...).

    An array runs while one of its tasks does, waits while one waits, and has ended well when all
    have: of the rows of its tasks the one is given that says so.
    """
    tasks = dict.fromkeys(row.task for row in rows)
    own = [_own_row_of(job, [row for row in rows if row.task == task]) for task in tasks]
    return min((row for row in own if row), key=_rank, default=None)


def _rank(row: JobRow) -> tuple[int, bool]:
    lives = (Life.RUNNING, Life.WAITING, Life.UNKNOWN, Life.ENDED)
    return lives.index(row.life), row.state == "COMPLETED"


def _own_row_of(job: JobRef, rows: Sequence[JobRow]) -> JobRow | None:
    own: JobRow | None = None
    for row in rows:
        follows = own is not None and own.state in _GOES_ON
        restarted = row.source == "squeue" and row.restarts > 0
        if follows or restarted or _submitted_then(row, job.submitted):
            own = row
        elif own is not None:
            break
    return own


def _submitted_then(row: JobRow, submitted: float) -> bool:
    try:
        at = datetime.fromisoformat(row.submit_time)
    except ValueError:
        return True
    if not submitted:
        return True
    # in the hour that comes twice in autumn both readings count
    return any(
        abs(at.replace(fold=fold).timestamp() - submitted) < SAME_SUBMIT_S for fold in (0, 1)
    )


def see_process(job: JobRef) -> Seen:
    """A local job: its id is a process id, on the host where it was submitted."""
    # psutil, and only for local jobs
    from clusterlm.supervise.allocation import process_lives

    here = socket.gethostname()
    if job.host not in (None, here):
        return Seen(None, "process", None, is_blind=True, trouble=f"it runs on {job.host}")
    lives = job.job_id.isdecimal() and process_lives(int(job.job_id), job.pid_started)
    row = JobRow(job.job_id, "RUNNING", nodes=here, source="process") if lives else None
    return Seen(row, "process", 0.0)
