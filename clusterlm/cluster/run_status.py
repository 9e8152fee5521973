"""One line of `status`: the values that a verdict, a run's records and a row add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clusterlm.cluster.log_text import readable_line
from clusterlm.cluster.records import Records
from clusterlm.cluster.scheduler import Seen
from clusterlm.node.progress import HIGH_WAIT
from clusterlm.node.records import Progress
from clusterlm.node.secret_env import redactor_of
from clusterlm.supervise.causes import Cause, State
from clusterlm.supervise.views import Verdict

FASTER_DATA = (
    "data comes too slowly: more train.dataloader_num_workers read ahead, and a cache folder on a "
    "faster file system (CLUSTERLM_CACHE_DIR) reads faster"
)


@dataclass(frozen=True)
class RunStatus:
    """One line of `status`."""

    run: str
    cluster: str
    state: State
    phase: str
    cause: Cause | None
    advice: str
    attempt: int | None
    job_ids: list[str]
    nodes: list[str]
    step: int | None
    total_steps: int | None
    loss: float | None
    tokens_per_s: float | None
    eta_s: float | None
    updated_s_ago: float | None
    """Age of what the state rests on."""
    source: str
    """records, supervisor, squeue, sacct, process, or nothing."""
    task: int | None = None
    """Of the array that encodes: the one that the state speaks of."""
    rank: int | None = None
    host: str | None = None
    error: str | None = None
    evidence: str = ""
    trouble: str = ""
    """Why the answer is not fresher: "squeue does not answer: ..."."""
    doing: str = ""
    """The phase's own word for what it does: "tokenizing 34 MB of 120 MB"."""
    tokens_per_s_per_gpu: float | None = None
    """On the CPU: of one rank."""
    mfu: float | None = None
    """Share of the GPU's peak arithmetic that the model used; docs/metrics.md."""
    data_wait: float | None = None
    """Share of the time in which a rank waited for data."""
    eval_loss: float | None = None
    """Of the newest evaluation."""
    perplexity: float | None = None
    run_dir: str = ""
    """Its folder, on the machine that answers."""

    @property
    def waits_for_data(self) -> bool:
        """It trains slower than it could, for want of data."""
        return self.state is State.TRAINING and (self.data_wait or 0.0) > HIGH_WAIT

    def to_json(self) -> dict[str, Any]:
        """What `status --json` prints."""
        fields = dict(vars(self))
        del fields["doing"]
        fields["state"] = self.state.value
        fields["cause"] = self.cause.name if self.cause else None
        for name in ("updated_s_ago", "eta_s"):
            fields[name] = None if fields[name] is None else round(fields[name], 1)
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> RunStatus:
        """From what `status --json` printed on another machine; its texts are made safe to show.

        What is not known, as with an answer of an older version, is left empty.
        """
        values: dict[str, Any] = {name: None for name in cls.__dataclass_fields__}
        values |= dict.fromkeys(_TEXTS, "") | {"job_ids": [], "nodes": []}
        for name, value in fields.items():
            # one that has another type than ours would hide the states of all other runs
            if name in values and (safe := _safe(name, value)) is not None:
                values[name] = safe
        state, cause = str(values["state"]), values["cause"]
        values["state"] = State(state) if state in {s.value for s in State} else State.UNKNOWN
        values["cause"] = Cause.__members__.get(str(cause))
        return cls(**values)


_TEXTS = ("run", "cluster", "phase", "advice", "source", "evidence", "trouble", "doing", "run_dir")
_LISTS = ("job_ids", "nodes")
_WORDS = (*_TEXTS, "state", "cause", "host", "error")
_WHOLE = ("attempt", "step", "total_steps", "task", "rank")
_LARGEST = 10**15


def _safe(name: str, value: Any) -> Any:
    """A value as this field has it, its text fit for a terminal; None when it is something else."""
    if name in _LISTS:
        return [readable_line(str(one)) for one in value] if isinstance(value, list) else None
    if name in _WORDS:
        return readable_line(value) if isinstance(value, str) else None
    kinds = (int,) if name in _WHOLE else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    # so written, NaN is none either
    return value if is_number and -_LARGEST < value < _LARGEST else None


def compose(records: Records, verdict: Verdict, sight: Seen | None, now: float) -> RunStatus:
    """Put the values of a line together."""
    history, progress = records.history, records.progress
    told = _failure_told(records, verdict)
    source, age_s = _source(records, sight, now)
    # what ranks and scripts have written may be of a version, or a script, that hides nothing
    hide = redactor_of(records.run.secrets)
    return RunStatus(
        run=records.run.name,
        cluster=history.cluster,
        state=verdict.state,
        phase=str(history.end.get("phase") or records.phase) if history.end else records.phase,
        cause=verdict.cause,
        advice=_advice(records, verdict, told),
        attempt=records.attempt,
        job_ids=[job.job_id for job in history.jobs.values()],
        nodes=_nodes(records, sight),
        step=progress.step if progress else None,
        total_steps=progress.total_steps if progress else None,
        loss=progress.loss if progress else None,
        tokens_per_s=progress.tokens_per_s if progress else None,
        eta_s=progress.eta_s if progress and not verdict.state.is_final else None,
        updated_s_ago=age_s,
        source=source,
        task=_task(told, sight),
        rank=told.get("rank"),
        host=told.get("host"),
        error=hide.tree(told.get("error")),
        evidence=hide(_evidence(verdict, sight)),
        trouble=sight.trouble if sight and not sight.is_blind else "",
        **_measured(progress),
        doing=hide(_doing(records)),
        run_dir=str(records.run.root),
    )


def _doing(records: Records) -> str:
    progress = records.progress
    return str(progress.text or "") if progress and records.progress_is_current else ""


def _measured(progress: Progress | None) -> dict[str, float | None]:
    names = ("tokens_per_s_per_gpu", "mfu", "data_wait", "eval_loss", "perplexity")
    return {name: getattr(progress, name) if progress else None for name in names}


def _nodes(records: Records, sight: Seen | None) -> list[str]:
    by_slurm = [sight.row.nodes] if sight and sight.row and sight.row.nodes else []
    own = list(records.tasks.nodes) if records.tasks else records.history.nodes
    return own or by_slurm


def _task(told: Mapping[str, Any], sight: Seen | None) -> int | None:
    by_slurm = sight.row.task if sight and sight.row else ""
    noted: int | None = told.get("task")
    return noted if noted is not None or not by_slurm.isdecimal() else int(by_slurm)


def _failure_told(records: Records, verdict: Verdict) -> dict[str, Any]:
    """The event that the state speaks of, for its rank, host and error."""
    history = records.history
    if history.end is not None:
        return history.end
    if verdict.state is State.RETRYING and records.tasks:
        return records.tasks.failure or {}
    if verdict.state is State.RETRYING:
        return history.failure or history.last_end or {}
    return {}


def _advice(records: Records, verdict: Verdict, told: Mapping[str, Any]) -> str:
    name = records.run.name
    if verdict.state is State.UNKNOWN:
        return f"nothing was changed; look again: clusterlm status {name}"
    wait = records.progress.data_wait if records.progress else None
    if verdict.state is State.TRAINING and (wait or 0.0) > HIGH_WAIT:
        return FASTER_DATA
    if verdict.cause is None or verdict.state is State.STOPPING:
        return ""
    return verdict.cause.advice(run=name, rank=told.get("rank"), host=told.get("host"))


def _source(records: Records, sight: Seen | None, now: float) -> tuple[str, float | None]:
    history = records.history
    if sight is not None and sight.source:
        return sight.source, sight.age_s
    if sight is None and history.end is None and records.beat_s_ago is not None:
        ages = (records.beat_s_ago, records.progress_s_ago)
        return "supervisor", min(age for age in ages if age is not None)
    written = history.end.get("time") if history.end else history.updated
    return "records", max(0.0, now - written) if written else None


def _evidence(verdict: Verdict, sight: Seen | None) -> str:
    if verdict.state is not State.UNKNOWN or sight is None:
        return verdict.evidence
    last = f"; last known: {sight.row.state}" if sight.row else ""
    why = f" ({sight.trouble})" if sight.trouble else ""
    return f"{verdict.evidence}{why}{last}"
