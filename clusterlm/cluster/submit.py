"""job -> run directory -> jobs in flight. Slurm owns the chain; a cache hit sends training alone.

A refused or interrupted submit leaves nothing: no job, no run directory.
"""

from __future__ import annotations

import fcntl
import getpass
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from clusterlm.cluster import claims, launcher
from clusterlm.cluster.host import Host
from clusterlm.cluster.images.of_job import Ready, planned_image, ready_image
from clusterlm.cluster.interrupts import deaf
from clusterlm.cluster.preflight import refuse_impossible
from clusterlm.cluster.run_folder import (
    Resolved,
    fill_run_folder,
    free_name,
    is_of_key,
    make_run_folder,
    refuse_open_run,
    refuse_open_runs_dir,
    refuse_taken_name,
    remove_run_folder,
    secret_values,
    spec_text,
    write_node_files,
)
from clusterlm.cluster.sending import Chain, prepare_data, send_phase
from clusterlm.cluster.slurm import scancel
from clusterlm.cluster.status import refuse_living
from clusterlm.cluster.unnoted import make_void, note_unnoted
from clusterlm.data.fingerprint import describe, fingerprint_of_parts
from clusterlm.data.model_key import model_key
from clusterlm.data.whole import why_not_ready, why_not_whole
from clusterlm.errors import ClusterLMError, JobsLeft, RunError, SendUnclear
from clusterlm.node.files import read_json, write_json
from clusterlm.paths import CachePaths, Phase, RunPaths, runs_dir
from clusterlm.render import Launch, refuse_unsafe_folder, render_run, render_sbatch
from clusterlm.spec.job import LOCAL, Job
from clusterlm.spec.load import LoadedJob
from clusterlm.supervise.history import record
from clusterlm.supervise.owner import new_key
from clusterlm.weights.resized import key_of


@dataclass(frozen=True)
class Submission:
    """What a submit did."""

    run: RunPaths
    job_ids: dict[Phase, str]
    """Job (local: process) id by phase."""
    fingerprint: str | None
    cache_hit: bool
    shares_with: str | None = None
    """Run whose preprocess job prepares the same data."""
    tasks: int = 1
    """Of the array that encodes, when one was sent."""

    def fields(self) -> dict[str, Any]:
        """For programs."""
        return {
            "run": self.run.name,
            "job_ids": self.job_ids,
            "run_dir": str(self.run.root),
            "cache_hit": self.cache_hit,
            "fingerprint": self.fingerprint,
            "shares_with": self.shares_with,
        }


def rendered(loaded: LoadedJob, name: str) -> dict[str, str]:
    """Every text that `submit` would write or send, by file name; touches nothing."""
    job, run = loaded.job, RunPaths(runs_dir() / name)
    refuse_unsafe_folder(run)
    parts = describe(job.data) if job.data else None
    fingerprint = fingerprint_of_parts(parts) if parts else None
    files = {"spec.json": spec_text(job)}
    if job.cluster != LOCAL:
        launch = Launch()
        cache = CachePaths.of(fingerprint, model_key(job, parts)) if fingerprint else None
        if cache and why_not_ready(cache):
            if job.encode_tasks > 1 and why_not_whole(cache.root):
                files["encode.sbatch"] = render_sbatch(job, run, "encode", launch)
                launch = Launch(dependency="afterok:ENCODE_JOB_ID")
            files["preprocess.sbatch"] = render_sbatch(job, run, "preprocess", launch)
            launch = Launch(dependency="afterok:PREPROCESS_JOB_ID")
        files["train.sbatch"] = render_sbatch(job, run, "train", launch)
    return {**files, **render_run(job, run, fingerprint, planned_image(job, run).container)}


def submit(
    loaded: LoadedJob,
    name: str,
    host: Host,
    *,
    key: str = "",
    may_build: bool = True,
    tell: Callable[[str], None] = print,
) -> Submission:
    """Make the run directory and send its jobs; an image that is not there is built first.

    Args:
        loaded: the job.
        name: of the run.
        host: where Slurm and docker are.
        key: of this submit: a call that was cut off is gone on with by one with the same key.
        may_build: build or import the image; else its absence is an error.
        tell: gets a line for the user at each step of a build.

    Raises:
        RunError: the name is taken.
        ImageError: the image is not there and cannot be built.
        SlurmError: Slurm is not there, cannot satisfy the request, or refused it.
        SendUnclear: whether a job is in the queue is not known; the run directory stays.
    """
    run, key = RunPaths(runs_dir() / name), key or new_key()
    job = loaded.job
    if is_of_key(run, key):
        job = _read_spec(run)
    else:
        _make(run, loaded, key, host, may_build=may_build, tell=tell)
    try:
        return _send(run, job, host, key, tell)
    except (JobsLeft, SendUnclear):
        # a job lives, or may live, and writes here
        raise
    except BaseException:
        remove_run_folder(run, key)
        raise


def _make(
    run: RunPaths,
    loaded: LoadedJob,
    key: str,
    host: Host,
    *,
    may_build: bool,
    tell: Callable[[str], None],
) -> None:
    job = loaded.job
    refuse_unsafe_folder(run)
    refuse_open_runs_dir(run)
    refuse_taken_name(run)
    refuse_impossible(job, host, loaded.path.name)
    # what costs nothing to find out comes before an image is built
    secrets = secret_values(job)
    parts = describe(job.data) if job.data else None
    model = model_key(job, parts)
    ready = ready_image(job, run, host, may_build=may_build, tell=tell)
    resolved = Resolved(loaded, secrets, parts, ready.container, ready.lock, model)
    make_run_folder(run, resolved, key)


def resume(
    run: RunPaths,
    host: Host,
    loaded: LoadedJob | None = None,
    *,
    tell: Callable[[str], None] = print,
) -> Submission:
    """Send a run that has ended again; it goes on from its newest verified checkpoint.

    Args:
        run: the run.
        host: where Slurm is.
        loaded: the job in place of the one that was submitted; its model must be the same once
            there is a checkpoint.
        tell: gets a line for the user at each step of a build.

    Raises:
        RunError: the run is done, or the job now asks for another model.
        ImageError: its image is gone and cannot be built again.
    """
    refuse_open_run(run)
    job = loaded.job if loaded else _read_spec(run)
    refuse_impossible(job, host)
    if loaded:
        _refuse_another_model(run, job)
    note_unnoted(run, job, host)
    refuse_living(run)
    # also without a change: the image may have been removed, or clusterlm is newer than it
    ready = ready_image(job, run, host, may_build=True, tell=tell)
    with _one_resume_at_a_time(run):
        refuse_living(run)
        make_void(run)
        run.cancel.unlink(missing_ok=True)
        key = new_key()
        record(run, "resumed", by=getpass.getuser(), key=key)
    if loaded:
        parts = describe(job.data) if job.data else None
        model = model_key(job, parts)
        resolved = Resolved(loaded, secret_values(job), parts, ready.container, ready.lock, model)
        fill_run_folder(run, resolved)
    elif ready.container:
        _take_image(run, job, ready)
    return _send(run, job, host, key, tell)


def _take_image(run: RunPaths, job: Job, ready: Ready) -> None:
    """Let an otherwise unchanged run use the image that is there now."""
    lock = read_json(run.lock) or {}
    write_json(run.lock, {**lock, "image": ready.lock})
    write_node_files(run, job, lock.get("fingerprint"), ready.container)


@contextmanager
def _one_resume_at_a_time(run: RunPaths) -> Iterator[None]:
    """Of two resumes in one moment the second finds the run alive."""
    with run.events.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _read_spec(run: RunPaths) -> Job:
    try:
        return Job.model_validate_json(run.spec.read_text())
    except (OSError, ValueError) as error:
        raise RunError(
            f"{run.spec} cannot be read: {type(error).__name__}\n"
            f"  name the YAML again:  clusterlm resume {run.name} --job JOB"
        ) from error


def _refuse_another_model(run: RunPaths, job: Job) -> None:
    if not any(run.checkpoints.glob("checkpoint-*")):
        return
    before = _read_spec(run)
    block_sizes = [j.data.block_size if j.data else None for j in (before, job)]
    is_same = before.model == job.model and block_sizes[0] == block_sizes[1]
    if not is_same:
        raise RunError(
            f"{run.name} has checkpoints of another `model` or `data.block_size` than the job asks "
            f"for now\n  start a new run:  clusterlm submit JOB --name {free_name(run)}"
        )


def _send(run: RunPaths, job: Job, host: Host, key: str, tell: Callable[[str], None]) -> Submission:
    # Ctrl-C or a closed terminal waits for the second that this takes: no half chains
    with deaf():
        return _send_whole(Chain(run, job, host, key, tell))


def _send_whole(chain: Chain) -> Submission:
    run, sent = chain.run, chain.sent
    fingerprint = (read_json(run.lock) or {}).get("fingerprint")
    cache = CachePaths.of(fingerprint, key_of(run)) if fingerprint else None
    try:
        cache_hit, after, shared = True, None, None
        if cache:
            cache_hit, after, shared = prepare_data(chain, cache)
        send_phase(chain, "train", after)
    except SendUnclear:
        # what was sent is right, whatever becomes of the rest: the same key goes on from here
        record(run, "send_unclear", key=chain.key)
        raise
    except BaseException as error:
        try:
            _take_back(run, chain.job, cache, chain.host, sent)
        except ClusterLMError as second:
            left = " ".join(s.job_id for s in sent)
            raise JobsLeft(f"{error}\n  {second}\n  take back by hand: scancel {left}") from error
        raise
    ids = {s.phase: s.job_id for s in sent}
    return Submission(run, ids, fingerprint, cache_hit, shared, max(s.tasks for s in sent))


def _take_back(
    run: RunPaths,
    job: Job,
    cache: CachePaths | None,
    host: Host,
    sent: list[launcher.Submitted],
) -> None:
    if cache and claims.leave(cache, run.name):
        # somebody else has joined our data jobs in this moment: they stay
        sent = [s for s in sent if s.phase == "train"]
    if not sent:
        return
    if job.cluster == LOCAL:
        write_json(run.cancel, {"by": "submit", "now": True, "time": time.time()})
        time.sleep(1.0)
    else:
        scancel(host, [s.job_id for s in sent])
