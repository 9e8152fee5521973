"""Which job does what was sent: one job for each send, however often sbatch was called.

A send is one wish to have a phase run: the submit's key and the phase make its token. When sbatch
does not answer nobody can know whether the job is in the queue, and a second one may be sent. The
first to write `claims/<token>.json` owns the send: the submitting side when it learns a job's id,
or a job when it starts. A job that finds another's id there ends at once (`batch_step.py`). A
requeued job keeps its id and passes; a resume has a token of its own.

An array has one owner, so that tasks of two arrays never mix.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from clusterlm.errors import RunError
from clusterlm.node.files import create_json, has_appeared, read_json
from clusterlm.paths import PRIVATE_DIR, Phase, RunPaths

VOID = "void"
"""Owner of a send that a resume has put an end to: no job may do it any more."""
READ_TRIES = 20


@dataclass(frozen=True)
class Owner:
    """The job that does what was sent."""

    job_id: str
    """Of an array: the array's."""
    pid_started: float | None = None
    """Local only, where the id is a process id."""
    host: str | None = None


def claim_file(run: RunPaths, token: str) -> Path:
    """Says which job owns a send."""
    return run.root / "claims" / f"{token}.json"


def sent_file(run: RunPaths, token: str) -> Path:
    """What sbatch gets: its name marks the job in the queue; while it is there, that may be one."""
    return run.submitit / f"{token}.sbatch"


def new_key() -> str:
    """For a submit that was given none."""
    return uuid.uuid4().hex


def token_of(key: str, phase: Phase) -> str:
    """The same for every try of one submit to send this phase."""
    return f"{key}-{phase}"


def take(run: RunPaths, token: str, job: Owner) -> Owner:
    """Make `job` the owner of a send unless there is one.

    Returns:
        The owner.

    Raises:
        RunError: the record cannot be read.
        OSError: the run directory is gone, or cannot be written.
    """
    path = claim_file(run, token)
    # not `parents`: a run directory that somebody has deleted must not come back as a skeleton
    path.parent.mkdir(exist_ok=True, mode=PRIVATE_DIR)
    if not has_appeared(path):
        create_json(path, {**asdict(job), "time": time.time()})
    owner = owner_of(run, token)
    if owner is None:
        raise RunError(f"{path} vanished while it was read")
    return owner


def owner_of(run: RunPaths, token: str) -> Owner | None:
    """The job that owns a send, or None while nobody does.

    Raises:
        RunError: the record is there and cannot be read; who owns the send is not known then.
    """
    path = claim_file(run, token)
    for _ in range(READ_TRIES):
        if not has_appeared(path):
            return None
        fields = read_json(path)
        if fields and fields.get("job_id"):
            started = fields.get("pid_started")
            return Owner(str(fields["job_id"]), started, fields.get("host"))
        # a stale handle of a shared folder; it is written whole
        time.sleep(0.25)
    raise RunError(f"{path} cannot be read: which job owns this phase is not known")
