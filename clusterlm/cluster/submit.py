"""job -> run directory -> jobs in flight. Slurm owns the chain; a cache hit sends training alone.

A refused or interrupted submit leaves nothing: no job, no run directory.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from clusterlm import __version__
from clusterlm.cluster import claims, launcher
from clusterlm.cluster.host import Host
from clusterlm.cluster.preflight import claim_is_alive, refuse_impossible
from clusterlm.cluster.slurm import scancel
from clusterlm.data.fingerprint import describe, fingerprint_of_parts
from clusterlm.errors import ClusterLMError, RunError
from clusterlm.node.files import read_json, write_atomically, write_json
from clusterlm.paths import PRIVATE_DIR, CachePaths, Phase, RunPaths, cache_dir, runs_dir
from clusterlm.render import Launch, refuse_unsafe_folder, render_run, render_sbatch
from clusterlm.spec.job import LOCAL, Job
from clusterlm.spec.load import LoadedJob
from clusterlm.supervise.history import record


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


def rendered(loaded: LoadedJob, name: str) -> dict[str, str]:
    """Every text that `submit` would write or send, by file name; touches nothing."""
    job, run = loaded.job, RunPaths(runs_dir() / name)
    refuse_unsafe_folder(run)
    fingerprint = fingerprint_of_parts(describe(job.data)) if job.data else None
    files = {"spec.json": _spec_text(job)}
    if job.cluster != LOCAL:
        launch = Launch(folder=str(run.submitit))
        if fingerprint and not CachePaths.of(fingerprint).ready.exists():
            files["preprocess.sbatch"] = render_sbatch(job, run, "preprocess", launch)
            launch = Launch(folder=launch.folder, dependency="afterok:PREPROCESS_JOB_ID")
        files["train.sbatch"] = render_sbatch(job, run, "train", launch)
    return {**files, **render_run(job, run, fingerprint)}


def submit(loaded: LoadedJob, name: str, host: Host) -> Submission:
    """Make the run directory and send its jobs.

    Raises:
        RunError: the name is taken.
        SlurmError: Slurm is not there, cannot satisfy the request, or refused it.
    """
    job, run = loaded.job, RunPaths(runs_dir() / name)
    refuse_unsafe_folder(run)
    refuse_taken_name(run)
    refuse_impossible(job, host)
    secrets = _secret_values(job)
    parts = describe(job.data) if job.data else None
    _make_folder(run)
    try:
        fingerprint = _fill(run, loaded, secrets, parts)
        record(run, "created", run=run.name, cluster=job.cluster, version=__version__)
        return _send(run, job, fingerprint, host)
    except BaseException:
        shutil.rmtree(run.root, ignore_errors=True)
        raise


def resume(run: RunPaths, host: Host, loaded: LoadedJob | None = None) -> Submission:
    """Send a run that has ended again; it goes on from its newest verified checkpoint.

    Args:
        run: the run.
        host: where Slurm is.
        loaded: the job in place of the one that was submitted; its model must be the same once
            there is a checkpoint.

    Raises:
        RunError: the run is done, or the job now asks for another model.
    """
    job = loaded.job if loaded else Job.model_validate_json(run.spec.read_text())
    refuse_impossible(job, host)
    if loaded:
        _refuse_another_model(run, job)
        parts = describe(job.data) if job.data else None
        _fill(run, loaded, _secret_values(job), parts)
    fingerprint = (read_json(run.lock) or {}).get("fingerprint")
    run.cancel.unlink(missing_ok=True)
    record(run, "resumed", by=getpass.getuser())
    return _send(run, job, fingerprint, host)


def _refuse_another_model(run: RunPaths, job: Job) -> None:
    before = Job.model_validate_json(run.spec.read_text())
    block_sizes = [j.data.block_size if j.data else None for j in (before, job)]
    is_same = before.model == job.model and block_sizes[0] == block_sizes[1]
    if not is_same and any(run.checkpoints.glob("checkpoint-*")):
        raise RunError(
            f"{run.name} has checkpoints of another `model` or `data.block_size` than the job asks "
            f"for now\n  start a new run:  clusterlm submit JOB --name {_free_name(run)}"
        )


def refuse_taken_name(run: RunPaths) -> None:
    """A run directory is written once; a second training under one name would destroy the first."""
    if run.root.exists():
        raise RunError(
            f"a run named {run.name} exists already ({run.root})\n"
            f"  start another:  --name {_free_name(run)}\n"
            f"  go on with it:  clusterlm resume {run.name}"
        )


def _free_name(run: RunPaths) -> str:
    number = 2
    while run.root.with_name(f"{run.name}-{number}").exists():
        number += 1
    return f"{run.name}-{number}"


def _make_folder(run: RunPaths) -> None:
    run.root.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
    try:
        # mkdir is the claim on the name: of two submits at once, one gets it
        run.root.mkdir(mode=PRIVATE_DIR)
    except FileExistsError:
        refuse_taken_name(run)
        raise
    for folder in (run.submitit, run.checkpoints):
        folder.mkdir(mode=PRIVATE_DIR)


def _fill(
    run: RunPaths,
    loaded: LoadedJob,
    secrets: dict[str, str],
    parts: dict[str, Any] | None,
) -> str | None:
    """Write what was asked for and what nodes run; the fingerprint of the data."""
    job = loaded.job
    fingerprint = fingerprint_of_parts(parts) if parts else None
    write_atomically(run.job_yaml, loaded.text)
    write_atomically(run.spec, _spec_text(job))
    fields = {
        "version": __version__,
        "python": sys.executable,
        "cluster": job.cluster,
        "fingerprint": fingerprint,
        # if a source changes while the job waits, the data phase can say which
        "fingerprint_parts": parts,
        "cache_dir": str(cache_dir()),
        "job_yaml": str(loaded.path),
        "time": time.time(),
    }
    write_json(run.lock, fields)
    if secrets:
        write_json(run.secrets, secrets)
    for name, text in render_run(job, run, fingerprint).items():
        write_atomically(run.root / name, text, mode=0o700 if name.endswith(".sh") else 0o600)
    return fingerprint


def _spec_text(job: Job) -> str:
    return json.dumps(job.model_dump(mode="json", by_alias=True), indent=2) + "\n"


def _secret_values(job: Job) -> dict[str, str]:
    missing = [name for name in job.secrets if name not in os.environ]
    if missing:
        raise ClusterLMError(
            f"secrets: {', '.join(missing)} not set in the environment\n"
            f"  export {missing[0]}=... in the shell that submits, or leave it out of `secrets`"
        )
    return {name: os.environ[name] for name in job.secrets}


def _send(run: RunPaths, job: Job, fingerprint: str | None, host: Host) -> Submission:
    with _uninterrupted():
        return _send_whole(run, job, fingerprint, host)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the second that this takes: half a chain is worse than a late answer.

    Ignored and not handled, so that sbatch, which gets the same Ctrl-C, ignores it too.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _send_whole(run: RunPaths, job: Job, fingerprint: str | None, host: Host) -> Submission:
    sent: list[launcher.Submitted] = []
    try:
        cache_hit, after, shared = True, None, None
        if fingerprint:
            cache_hit, after, shared = _prepare_data(run, job, fingerprint, host, sent)
        train = _submit_phase(run, job, "train", after)
        sent.append(train)
        _note(run, job, train)
    except BaseException:
        _take_back(run, job, fingerprint, host, sent)
        raise
    ids = {s.phase: s.job_id for s in sent}
    return Submission(run, ids, fingerprint, cache_hit, shared)


def _prepare_data(
    run: RunPaths, job: Job, fingerprint: str, host: Host, sent: list[launcher.Submitted]
) -> tuple[bool, launcher.Submitted | None, str | None]:
    """Find or start what prepares the data: (hit, job to wait for, run that owns the job)."""
    cache = CachePaths.of(fingerprint)
    with claims.locked(cache):
        if cache.ready.exists():
            record(run, "cache_hit", fingerprint=fingerprint)
            return True, None, None
        claim = claims.live_claim(cache, job.cluster, lambda c: claim_is_alive(c, host))
        if claim:
            claims.join(cache, claim, run.name)
            shared = launcher.Submitted("preprocess", claim.job_id, claim.pid_started, claim.host)
            _note(run, job, shared, owner=claim.run)
            return False, shared, claim.run
        own = _submit_phase(run, job, "preprocess", None)
        sent.append(own)
        _note(run, job, own)
        local = {"pid_started": own.pid_started, "host": own.host}
        claims.write_claim(cache, claims.claim_of(run.name, own.job_id, job.cluster, **local))
        return False, own, None


def _submit_phase(
    run: RunPaths, job: Job, phase: Phase, after: launcher.Submitted | None
) -> launcher.Submitted:
    if job.cluster == LOCAL:
        return launcher.submit_locally(run, phase, after.after if after else "")
    dependency = f"afterok:{after.job_id}" if after else None
    return launcher.submit_to_slurm(run, job, phase, dependency)


def _note(run: RunPaths, job: Job, sent: launcher.Submitted, owner: str | None = None) -> None:
    fields: dict[str, Any] = {
        "phase": sent.phase,
        "job_id": sent.job_id,
        "cluster": job.cluster,
    }
    if sent.pid_started:
        fields |= {"pid_started": sent.pid_started, "host": sent.host}
    if owner:
        record(run, "shares", run=owner, **fields)
    else:
        record(run, "submitted", **fields)


def _take_back(
    run: RunPaths,
    job: Job,
    fingerprint: str | None,
    host: Host,
    sent: list[launcher.Submitted],
) -> None:
    if fingerprint and claims.leave(CachePaths.of(fingerprint), run.name):
        # somebody else has joined our data job in this moment: it stays
        sent = [s for s in sent if s.phase != "preprocess"]
    if not sent:
        return
    if job.cluster == LOCAL:
        write_json(run.cancel, {"by": "submit", "now": True, "time": time.time()})
        time.sleep(1.0)
    else:
        scancel(host, [s.job_id for s in sent])
