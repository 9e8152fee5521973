"""Every log of a run as one text: files of all nodes and ranks, merged, each line with its origin.

    [rank 3 node2] step 40 loss 5.1          logs/rank3.log
    [node2] torchrun: ...                    logs/node1.log
    [step] srun: error: ...                  logs/step.log
    [batch] ...                              what the batch step itself printed
    [task 3 rank 0 node2] ...                of one task of the array that encodes

Lines carry no time, so the order between files is that of reading; attempts stand in their order,
each under a line that names it. Follow is `follow.py`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clusterlm.cluster.log_text import ErrorFilter, readable_line, readable_lines
from clusterlm.cluster.tail import Tail, last_lines
from clusterlm.cluster.tasks import tasks_of
from clusterlm.node.files import read_json
from clusterlm.node.redact import Redactor
from clusterlm.node.secret_env import redactor_of
from clusterlm.paths import PHASES, AttemptPaths, Phase, RunPaths
from clusterlm.supervise.history import JobRef, read_history


@dataclass(frozen=True)
class Wanted:
    """Which lines."""

    phase: Phase | None = None
    rank: int | None = None
    attempt: int | None = None
    errors: bool = False
    task: int | None = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (self.phase,) if self.phase else PHASES


@dataclass(frozen=True)
class LogFile:
    """One file and the attempt that it belongs to; the batch step's own belongs to a job."""

    path: Path
    attempt: AttemptPaths | None = None

    def label(self) -> str:
        """The prefix of its lines; the host is known some seconds after the file."""
        if self.attempt is None:
            task = re.match(r"\d+_(\d+)_0_log", self.path.stem)
            return f"[task {task[1]} batch]" if task else "[batch]"
        whose = f"task {task_of(self.attempt)} " if phase_of(self.attempt) == "encode" else ""
        match = re.fullmatch(r"(rank|node)(\d+)", self.path.stem)
        if match is None:
            return f"[{whose}{self.path.stem}]"
        name, number = match[1], match[2]
        host = _host(self.attempt, f"{name}{number}.json")
        if name == "node":
            return f"[{whose}{host or f'node {number}'}]"
        return f"[{whose}rank {number} {host}]" if host else f"[{whose}rank {number}]"


def _host(attempt: AttemptPaths, name: str) -> str:
    for folder in (attempt.heartbeats, attempt.exits):
        fields = read_json(folder / name)
        if fields and fields.get("host"):
            return readable_line(str(fields["host"]))
    return ""


def attempts_of(run: RunPaths, wanted: Wanted) -> list[AttemptPaths]:
    """Attempts that may have lines that are wanted, the newest last.

    A resume may prepare the data again, so the order is that of time and not of the phases; the
    folder of a living attempt changes all the time.
    """
    found = [
        records.attempt(phase, number)
        for phase in wanted.phases
        for records in (_tasks(run, wanted) if phase == "encode" else [run])
        for number in records.attempt_numbers(phase)
        if wanted.attempt in (None, number)
    ]
    return sorted(found, key=lambda attempt: _changed(attempt.root))


def _tasks(run: RunPaths, wanted: Wanted) -> list[RunPaths]:
    return [task for task in tasks_of(run) if wanted.task in (None, task.number)]


def files_of(attempt: AttemptPaths, wanted: Wanted) -> list[LogFile]:
    """Log files of one attempt that are there now, by name."""
    pattern = "*.log" if wanted.rank is None else f"rank{wanted.rank}.log"
    return [LogFile(path, attempt) for path in sorted(attempt.logs.glob(pattern))]


def batch_files(run: RunPaths, wanted: Wanted) -> list[LogFile]:
    """What the batch steps of the run's jobs printed; not wanted with a rank or an attempt."""
    if wanted.rank is not None or wanted.attempt is not None:
        return []
    history = read_history(run)
    jobs = [job for job in history.jobs.values() if job.phase in wanted.phases]
    stems = [stem for job in jobs for stem in _batch_stems(job, wanted)]
    names = [f"{stem}_0_log.{kind}" for stem in stems for kind in ("out", "err")]
    return [LogFile(run.submitit / name) for name in names if (run.submitit / name).exists()]


def _batch_stems(job: JobRef, wanted: Wanted) -> list[str]:
    if job.phase != "encode":
        return [job.job_id] if wanted.task is None else []
    return [f"{job.job_id}_{n}" for n in range(job.tasks) if wanted.task in (None, n)]


def newest_lines(run: RunPaths, wanted: Wanted, count: int) -> tuple[list[str], dict[Path, int]]:
    """The last `count` lines of the wanted attempts, the newest attempt last.

    What the newest attempt leaves of `count` goes to the one before, and so on. A run of several
    attempts says above the lines of each which one begins; these lines are not counted.

    Returns:
        The lines, and for each file the offset where following goes on.
    """
    attempts = attempts_of(run, wanted)
    groups = [files_of(attempt, wanted) for attempt in attempts] or [[]]
    # a job's batch step outlives its attempts
    groups[-1] += batch_files(run, wanted)
    lines: list[str] = []
    offsets: dict[Path, int] = {}
    left, hide = count, redactor_of(run.secrets)
    for index in reversed(range(len(groups))):
        own, ends = _lines_of(groups[index], wanted, left, hide)
        left -= len(own)
        if own and len(attempts) > 1:
            attempt = attempts[index]
            own.insert(0, f"--- {title_of(attempt)} ---")
        lines = own + lines
        offsets |= ends
    return lines, offsets


def phase_of(attempt: AttemptPaths) -> Phase:
    """The phase whose folder the attempt lies in."""
    # encode/<array>/<task>/<number>
    names: dict[str, Phase] = {"preprocess": "preprocess", "attempts": "train"}
    return names.get(attempt.root.parent.name, "encode")


def task_of(attempt: AttemptPaths) -> int:
    """The task whose attempt it is, of the phase `encode`."""
    return int(attempt.root.parent.name)


def title_of(attempt: AttemptPaths) -> str:
    """`train attempt 2`, `encode task 3 attempt 1`."""
    phase = phase_of(attempt)
    task = f" task {task_of(attempt)}" if phase == "encode" else ""
    return f"{phase}{task} attempt {attempt.number}"


def _lines_of(
    files: list[LogFile], wanted: Wanted, count: int, hide: Redactor
) -> tuple[list[str], dict[Path, int]]:
    """The last lines of some files, a fair share of each, the newest file last; and their ends."""
    taken = {file.path: _end_of(file, wanted, count, hide) for file in files}
    newest = sorted(files, key=lambda file: _changed(file.path), reverse=True)
    shares = _fair_shares([len(taken[f.path][0]) for f in newest], count)
    lines: list[str] = []
    for file, share in reversed(list(zip(newest, shares, strict=True))):
        label = file.label()
        lines += [f"{label} {text}" for text in taken[file.path][0][-share:] if share]
    return lines, {path: offset for path, (_, offset) in taken.items()}


def _end_of(file: LogFile, wanted: Wanted, count: int, hide: Redactor) -> tuple[list[str], int]:
    if not wanted.errors or count == 0:
        raw, offset = last_lines(file.path, count)
        return readable_lines(raw, hide), offset
    # errors may stand anywhere: the whole file passes by, the last `count` of them stay
    filtered = ErrorFilter()
    tail = Tail(file.path)
    kept: deque[str] = deque(maxlen=count)
    kept.extend(line for line in _all_lines(tail, hide) if filtered.passes(line))
    return list(kept), tail.offset


def _all_lines(tail: Tail, hide: Redactor) -> Iterator[str]:
    while not tail.is_at_end:
        yield from readable_lines(tail.read(0.0), hide)
    yield from readable_lines(tail.read(0.0, is_last=True), hide)


def _fair_shares(lengths: list[int], total: int) -> list[int]:
    """How many lines of each file: short ones give what they do not need to the others.

    lengths 2, 30, 90 and 50 lines in all: 2, 24, 24.
    """
    shares = [0] * len(lengths)
    left = total
    wanting = [index for index, length in enumerate(lengths) if length]
    by_length = sorted(wanting[:total], key=lambda i: lengths[i])
    for position, index in enumerate(by_length):
        shares[index] = min(lengths[index], left // (len(by_length) - position))
        left -= shares[index]
    return shares


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
