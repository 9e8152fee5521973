"""`clusterlm why RUN`: the first failure in time, in words, with its traceback and what to do.

The loudest error is seldom the cause: when one rank dies, all others report a broken connection. So
the earliest exit record that speaks for itself is told, of the newest attempt that failed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from clusterlm.cluster.event_words import failure_words
from clusterlm.cluster.full_disk import disk_words, is_full
from clusterlm.cluster.log_text import readable, readable_line
from clusterlm.cluster.logs import Wanted, batch_files
from clusterlm.cluster.records import read_records
from clusterlm.cluster.run_status import RunStatus
from clusterlm.cluster.standing import Standing, read_standing
from clusterlm.cluster.tail import last_lines
from clusterlm.cluster.tasks import attempt_of
from clusterlm.node.extensions import WAITS
from clusterlm.node.records import ExitRecord, read_exits
from clusterlm.node.secret_env import redactor_of
from clusterlm.paths import AttemptPaths, Phase, RunPaths
from clusterlm.supervise.causes import Cause, Restart, State
from clusterlm.supervise.failure import root_failure
from clusterlm.supervise.history import History

LOG_TAIL = 12
NOT_THE_KERNEL = (
    "somebody, or something, on {host} sent the signal (a person, the site's watchdog): ask there; "
    "then: clusterlm resume {run}"
)
_GOES_WELL = (State.PREPROCESSING, State.STARTING, State.TRAINING, State.DONE)
_NO_FAILURE = (*_GOES_WELL, State.PENDING, State.UNKNOWN, State.CANCELLED, State.STOPPING)


@dataclass(frozen=True)
class Explanation:
    """Why a run is as it is."""

    run: str
    state: State
    words: str
    """The answer in one sentence."""
    cause: Cause | None = None
    evidence: str = ""
    phase: str | None = None
    task: int | None = None
    """Of the array that encodes."""
    attempt: int | None = None
    rank: int | None = None
    host: str | None = None
    code: int | None = None
    signal: str | None = None
    error: str | None = None
    traceback: str | None = None
    log: str | None = None
    log_tail: tuple[str, ...] = ()
    """Last lines of the log when there is no traceback."""
    standing: Standing = Standing()
    disk: str = ""
    """The file system that is full, or what room it has again."""
    same_before: int = 0
    """Earlier attempts that ended by the same cause and error."""
    advice: str = ""
    source: str = ""
    updated_s_ago: float | None = None

    def to_json(self) -> dict[str, Any]:
        """What `why --json` prints."""
        cause = self.cause.name if self.cause else None
        return asdict(self) | {"state": self.state.value, "cause": cause}

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"{self.run} is {self.state.value}: {self.words}"]
        if self.evidence and self.evidence not in self.words:
            lines.append(f"  evidence  {readable_line(self.evidence)}")
        if self.standing.words:
            lines.append(f"  reached   {self.standing.words}")
        if self.disk:
            lines.append(f"  disk      {self.disk}")
        if self.same_before:
            times = "once" if self.same_before == 1 else f"{self.same_before} times"
            lines.append(f"  before    ended the same way {times} in earlier attempts")
        if self.traceback:
            lines += ["", *_indented(self.traceback.splitlines()), ""]
        elif self.log_tail:
            lines += ["", *_indented(self.log_tail), ""]
        if self.log:
            lines.append(f"  log       {self.log}")
        if self.advice:
            lines.append(f"  do        {self.advice}")
        return lines


def _indented(lines: list[str] | tuple[str, ...]) -> list[str]:
    return [f"    {readable_line(line)}" for line in lines]


def explain(run: RunPaths, status: RunStatus) -> Explanation:
    """Explain the state that `status` shows, without the run's secrets.

    Args:
        run: the run.
        status: its line, looked up just now.
    """
    found = _explain(run, status)
    hide = redactor_of(run.secrets)
    texts = {k: hide.tree(v) for k, v in vars(found).items() if type(v) in (str, tuple)}
    return replace(found, **texts)


def _explain(run: RunPaths, status: RunStatus) -> Explanation:
    base = Explanation(
        run=run.name,
        state=status.state,
        task=status.task,
        words=_words(status),
        cause=status.cause,
        evidence=status.evidence,
        phase=status.phase,
        attempt=status.attempt,
        advice=status.advice,
        standing=read_standing(run, status),
        source=status.source,
        updated_s_ago=status.updated_s_ago,
    )
    if status.state in _NO_FAILURE or (status.cause and status.cause.restart is Restart.FREE):
        return base
    history = read_records(run).history
    owner = _owner_of_failure(run, history, status)
    if owner is not None:
        found = _of_failure(replace(base, phase="preprocess"), owner, read_records(owner).history)
        found = replace(found, words=f"{found.words} (the data is prepared by run {owner.name})")
        return _with_disk(found, owner)
    return _with_disk(_of_failure(base, run, history), run)


def _with_disk(found: Explanation, run: RunPaths) -> Explanation:
    error = "\n".join(filter(None, (found.error, found.traceback, found.evidence)))
    disk = disk_words(run, found.cause, error)
    if not is_full(disk) or found.cause is Cause.DISK_FULL:
        return replace(found, disk=disk)
    words = f"{Cause.DISK_FULL.words}; {found.words}"
    advice = Cause.DISK_FULL.advice(run=run.name)
    return replace(found, disk=disk, words=words, cause=Cause.DISK_FULL, advice=advice)


def _words(status: RunStatus) -> str:
    """The state in a sentence, before anything is known of a failure."""
    age = f" ({status.source}, {status.updated_s_ago:.0f} s ago)" if status.updated_s_ago else ""
    if status.state is State.DONE:
        return "it ended well"
    if status.state is State.PENDING:
        return f"{status.evidence or 'it waits in the queue'}{age}"
    if status.state is State.UNKNOWN:
        return f"{status.evidence}; this says nothing about the job, which may run on{age}"
    if status.state in _GOES_WELL and status.doing.startswith(WAITS):
        return f"it hangs: {readable_line(status.doing)}{age}"
    if status.state in _GOES_WELL:
        step = f", step {status.step} of {status.total_steps or '?'}" if status.step else ""
        doing = f", {readable_line(status.doing)}" if status.doing else ""
        return f"nothing is wrong{step}{doing}{age}"
    return status.cause.words if status.cause else status.evidence


def _owner_of_failure(run: RunPaths, history: History, status: RunStatus) -> RunPaths | None:
    """The other run whose data phase this one waited for, when that is what failed."""
    job = history.jobs.get("preprocess")
    data_failed = status.cause in (Cause.PREPROCESS_FAILED, Cause.DATA_NOT_READY)
    if job is None or job.owner == run.name or not data_failed:
        return None
    owner = RunPaths(run.root.with_name(job.owner))
    return owner if owner.events.exists() else None


def _of_failure(base: Explanation, run: RunPaths, history: History) -> Explanation:
    """Fill in the first failure of the newest attempt that failed."""
    event = _failed_attempt(history)
    if event is None:
        return _with_batch_log(base, run)
    phase, number = cast(Phase, event.get("phase", "train")), int(event["attempt"])
    attempt, task = attempt_of(run, event, phase), event.get("task")
    before = _same_before(history, event)
    found = replace(base, phase=phase, task=task, attempt=number, same_before=before)
    cause = str(event.get("cause"))
    if base.cause in (None, Cause.PREPROCESS_FAILED, Cause.DATA_NOT_READY, Cause.NO_PROGRESS):
        found = replace(found, cause=Cause[cause] if cause in Cause.__members__ else base.cause)
    failure = root_failure(read_exits(attempt.root))
    told = failure.to_dict() if failure else event
    found = _with_failure(found, told, attempt, failure)
    if found.cause is None:
        return found
    advice = found.cause.advice(run=run.name, rank=found.rank, host=found.host)
    if found.cause is Cause.RANK_KILLED and told.get("out_of_memory") is False:
        advice = NOT_THE_KERNEL.format(run=run.name, host=found.host)
    words = found.cause.words
    if base.cause is not None and base.cause is not found.cause:
        words = f"{base.cause.words}; the last: {words}"
    return replace(found, words=f"{words}: {_where(found, told)}".rstrip(": "), advice=advice)


def _failed_attempt(history: History) -> dict[str, Any] | None:
    """The newest attempt_ended that was a failure, or the failure of the attempt that runs."""
    if history.attempt_open:
        return history.failure
    # of the tasks of an array the one that has ended the run
    task = (history.end or {}).get("task")
    failed = [
        e
        for e in history.ends
        if "attempt" in e and _is_failure(str(e.get("cause"))) and task in (None, e.get("task"))
    ]
    return failed[-1] if failed else None


def _is_failure(name: str) -> bool:
    cause = Cause.__members__.get(name)
    if cause is None:
        return True
    return cause.restart is not Restart.FREE and cause not in (Cause.DONE, Cause.CANCELLED)


def _with_batch_log(base: Explanation, run: RunPaths) -> Explanation:
    """No attempt failed: what the batch step itself printed last may say why."""
    files = batch_files(run, Wanted(task=base.task))
    logs = [file.path for file in files if file.path.stat().st_size]
    if not logs:
        return base
    newest = max(logs, key=lambda path: path.stat().st_mtime)
    return replace(base, log=str(newest), log_tail=_tail_of(newest))


def _same_before(history: History, event: dict[str, Any]) -> int:
    same = (event.get("cause"), event.get("error"))
    whose = (event.get("phase"), event.get("task"))
    before = [
        e for e in history.ends if e is not event and (e.get("phase"), e.get("task")) == whose
    ]
    return sum((e.get("cause"), e.get("error")) == same for e in before)


def _with_failure(
    found: Explanation, told: dict[str, Any], attempt: AttemptPaths, failure: ExitRecord | None
) -> Explanation:
    log = _log_of(attempt, told)
    traceback = failure.traceback if failure else None
    tail = () if traceback or log is None else _tail_of(log)
    return replace(
        found,
        rank=told.get("rank"),
        host=told.get("host"),
        code=told.get("code"),
        signal=told.get("signal"),
        error=told.get("error"),
        traceback=traceback,
        log=str(log) if log else None,
        log_tail=tail,
    )


def _log_of(attempt: AttemptPaths, told: dict[str, Any]) -> Path | None:
    rank = told.get("rank")
    candidates = [attempt.rank_log(rank)] if isinstance(rank, int) else []
    candidates.append(attempt.logs / "step.log")
    return next((path for path in candidates if path.exists()), None)


def _tail_of(log: Path) -> tuple[str, ...]:
    return tuple(readable(line) for line in last_lines(log, LOG_TAIL)[0])


def _where(found: Explanation, told: dict[str, Any]) -> str:
    whose = f"task {found.task}" if found.task is not None else ""
    if found.rank is not None:
        words = failure_words(told)
    else:
        words = found.error or str(told.get("evidence") or "")
        whose += f" on {found.host}" if whose and found.host else ""
    return readable_line(f"{whose}: {words}" if whose else words)
