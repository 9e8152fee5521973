"""Slurm's commands: argv out, rows in. Text and never JSON: 20.11 has none, 22.05's is unfiltered.

Parsers are pure and take any text: a line that is no job is left out, a word that is not known is
kept. What a state means is `supervise/slurm_states.py`; when to ask is `scheduler.py`.

squeue is read by column width and sacct by separator: sizes of `-O` mean the same from 20.11 to
24.11, and only `-O` knows the restart count, without which a requeue looks like another job.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clusterlm.cluster.host import Completed, Host
from clusterlm.errors import SlurmError, SlurmUnreachable
from clusterlm.supervise.slurm_states import JobRow, Life, first_word

CLIENT_TIMEOUT_S = 25.0
"""A client gives up by itself after 9 s (`scontrol`: 18 s) when the controller is down."""

# longer values are cut by squeue, at the width
_SQUEUE_COLUMNS = (
    # 71_4, where JobID says 75: each task of an array has a number of its own
    ("JobArrayID", 24),
    ("State", 24),
    ("RestartCnt", 12),
    ("SubmitTime", 24),
    ("exit_code", 12),
    ("NodeList", 256),
    ("Reason", 192),
    ("StartTime", 24),
)
_SACCT_FIELDS = ("JobID", "State", "ExitCode", "Submit", "NodeList", "Reason")
# 71, 71_4, 71_[5-15%2], 71+1
_JOB_ID = re.compile(r"(\d+)(?:_(\S+)|\+\S*)?")
_NOTHING = ("", "(null)", "None", "N/A", "n/a", "Unknown")


@dataclass(frozen=True)
class Partition:
    """One partition, as far as a job.yaml can be checked against it."""

    name: str
    nodes: int
    max_time_s: int | None
    """None: no limit."""
    is_default: bool
    is_available: bool


def squeue_argv(job_ids: Iterable[str]) -> list[str]:
    """One call for all jobs, the ended ones that the controller still knows among them."""
    columns = ",".join(f"{name}:{width}" for name, width in _SQUEUE_COLUMNS)
    return ["squeue", "-h", "-t", "all", "-O", columns, "-j", ",".join(job_ids)]


def sacct_argv(job_ids: Iterable[str]) -> list[str]:
    """One call for all jobs; -D: a requeued job has one row for each time it ran."""
    return ["sacct", "-nPXD", "-o", ",".join(_SACCT_FIELDS), "-j", ",".join(job_ids)]


def ask_squeue(host: Host, job_ids: Sequence[str]) -> dict[str, list[JobRow]]:
    """What the controller knows of these jobs; an id that is not in the answer is unknown to it.

    Raises:
        SlurmUnreachable: no answer; says nothing about any job.
    """
    done = host.run(squeue_argv(job_ids), timeout_s=CLIENT_TIMEOUT_S)
    # rc 1 with this text: none of the ids is known (one known id is enough for rc 0)
    if not done.is_ok and "Invalid job id specified" not in done.err:
        raise SlurmUnreachable(f"squeue does not answer: {last_words(done)}")
    return parse_squeue(done.out)


def job_lives(host: Host, job_id: str) -> bool:
    """Whether squeue lists the job as waiting or running; False also when it does not answer."""
    try:
        rows = ask_squeue(host, [job_id]).get(job_id, [])
    except SlurmUnreachable:
        return False
    return any(row.life in (Life.WAITING, Life.RUNNING) for row in rows)


def ask_sacct(host: Host, job_ids: Sequence[str]) -> dict[str, list[JobRow]]:
    """What the accounting database knows of these jobs, all runs of a requeued job in order.

    Raises:
        SlurmUnreachable: no answer, or accounting is switched off.
    """
    done = host.run(sacct_argv(job_ids), timeout_s=CLIENT_TIMEOUT_S)
    if "accounting storage is disabled" in done.err:
        raise SlurmUnreachable("this cluster keeps no accounting records")
    if not done.is_ok:
        raise SlurmUnreachable(f"sacct does not answer: {last_words(done)}")
    return parse_sacct(done.out)


def parse_squeue(text: str) -> dict[str, list[JobRow]]:
    """Rows by job id, from the columns of `squeue_argv`."""
    rows: dict[str, list[JobRow]] = {}
    for line in text.splitlines():
        cells, at = [], 0
        for _, width in _SQUEUE_COLUMNS:
            cells.append(_value(line[at : at + width]))
            at += width
        job, state, restarts, submitted, code, nodes, reason, start_time = cells
        if (match := _JOB_ID.fullmatch(job)) and _is_state(state):
            row = JobRow(
                job_id=match[1],
                state=first_word(state),
                reason=reason,
                nodes=nodes,
                submit_time=submitted,
                restarts=int(restarts) if restarts.isdecimal() else 0,
                exit_code=_exit_code(code),
                raw_state=state,
                task=match[2] or "",
                start_time=start_time,
            )
            rows.setdefault(row.job_id, []).append(row)
    return rows


def parse_sacct(text: str) -> dict[str, list[JobRow]]:
    """Rows by job id in the order of the runs, from the fields of `sacct_argv`."""
    rows: dict[str, list[JobRow]] = {}
    for line in text.splitlines():
        cells = [_value(cell) for cell in line.split("|", len(_SACCT_FIELDS) - 1)]
        cells += [""] * (len(_SACCT_FIELDS) - len(cells))
        job, state, code, submitted, nodes, reason = cells
        # 71.batch is a step: -X leaves them out, an odd wrapper may not
        if (match := _JOB_ID.fullmatch(job)) and _is_state(state):
            row = JobRow(
                job_id=match[1],
                state=first_word(state),
                reason=_reason_of_end(state, reason),
                nodes="" if nodes == "None assigned" else nodes,
                submit_time=submitted,
                restarts=sum(r.task == (match[2] or "") for r in rows.get(match[1], ())),
                exit_code=code,
                raw_state=state,
                source="sacct",
                task=match[2] or "",
            )
            rows.setdefault(row.job_id, []).append(row)
    return rows


def _reason_of_end(state: str, reason: str) -> str:
    # --kill-on-invalid-dep: squeue says DependencyNeverSatisfied, sacct "CANCELLED" by nobody
    never = state == "CANCELLED" and reason == "Dependency"
    return "DependencyNeverSatisfied" if never else reason


def _value(cell: str) -> str:
    stripped = cell.strip()
    return "" if stripped in _NOTHING else stripped


def _is_state(cell: str) -> bool:
    # CANCELLED by 0, CANCELLED+, NODE_FAIL, and words that Slurm may yet invent
    return re.match(r"[A-Z][A-Z_]{2,}(?![a-z])", cell) is not None


def _exit_code(cell: str) -> str:
    # 20.11 and 22.05 print the raw wait status: 768 is exit 3, 9 is signal 9; 24.11 prints 3:0
    if not cell.isdecimal():
        return cell
    return f"{int(cell) >> 8}:{int(cell) & 0x7F}"


def sinfo_argv() -> list[str]:
    """One row for each partition."""
    return ["sinfo", "-h", "-o", "%P|%D|%l|%a"]


def partitions(host: Host) -> list[Partition]:
    """The partitions that this user may see.

    Raises:
        SlurmUnreachable: no answer.
    """
    done = host.run(sinfo_argv(), timeout_s=CLIENT_TIMEOUT_S)
    if not done.is_ok:
        raise SlurmUnreachable(f"sinfo does not answer: {last_words(done)}")
    return parse_sinfo(done.out)


def parse_sinfo(text: str) -> list[Partition]:
    """Partitions in the order of the text; rows of one partition are added up."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) != 4 or not cells[0].strip("*") or not re.fullmatch(r"\d{1,9}", cells[1]):
            continue
        name, nodes = cells[0].rstrip("*"), int(cells[1])
        if known := found.get(name):
            nodes += known.nodes
        found[name] = Partition(
            name=name,
            nodes=nodes,
            max_time_s=_limit_s(cells[2]),
            is_default=cells[0].endswith("*"),
            is_available=cells[3] == "up",
        )
    return list(found.values())


def _limit_s(text: str) -> int | None:
    # only a submit pays for pydantic, which comes with it
    from clusterlm.spec.units import seconds_of

    try:
        return seconds_of(text)
    except (ValueError, OverflowError):  # infinite, n/a
        return None


def scancel(host: Host, job_ids: Sequence[str]) -> None:
    """End jobs. One that has ended, or was never there, is no error: Slurm says nothing either.

    Raises:
        SlurmUnreachable: the controller did not answer; the jobs may live on.
        SlurmError: it refused, for example another user's job.
    """
    done = host.run(["scancel", *job_ids], timeout_s=CLIENT_TIMEOUT_S)
    if done.is_ok:
        return
    text = f"scancel {' '.join(job_ids)}: {last_words(done)}"
    if done.code is None or re.search(r"contact slurm controller|timed out", done.err, re.I):
        raise SlurmUnreachable(text)
    raise SlurmError(text)


def last_words(done: Completed) -> str:
    """The newest line of what a Slurm command complained about, without its name before it.

    `sbatch: error: Batch job submission failed: Invalid partition name specified` gives
    `Invalid partition name specified`.
    """
    lines = [line.strip() for line in (done.err or done.out).splitlines() if line.strip()]
    if not lines:
        return f"exit {done.code}"
    return re.sub(
        r"^(?:\w+: )?(?:(?:error|fatal): )?(?:Batch job submission failed: )?", "", lines[-1]
    )
