"""The jobs of a run, one by one: what prepares its data, unless it is there or in the making."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from clusterlm.cluster import claims, launcher
from clusterlm.cluster.host import Host
from clusterlm.cluster.preflight import claim_is_alive
from clusterlm.data.whole import why_not_ready, why_not_whole
from clusterlm.paths import CachePaths, Phase, RunPaths
from clusterlm.spec.job import LOCAL, Job
from clusterlm.supervise.history import record


def prepare_data(
    run: RunPaths, job: Job, cache: CachePaths, host: Host, sent: list[launcher.Submitted]
) -> tuple[bool, launcher.Submitted | None, str | None]:
    """Find or start what prepares the data: (hit, job to wait for, run that owns the job)."""
    with claims.locked(cache):
        if why_not_ready(cache) is None:
            record(run, "cache_hit", fingerprint=cache.root.name)
            return True, None, None
        is_alive = partial(claim_is_alive, host=host)
        claim = claims.live_claim(cache, job.cluster, is_alive)
        if claim:
            claims.join(cache, claim, run.name)
            shared = launcher.Submitted("preprocess", claim.job_id, claim.pid_started, claim.host)
            if claim.array:
                sharing = launcher.Submitted("encode", claim.array, tasks=claim.tasks)
                _note(run, job, sharing, owner=claim.run)
            _note(run, job, shared, owner=claim.run)
            return False, shared, claim.run
        before, array = _others(cache, job, is_alive), None
        if before is None and job.encode_tasks > 1 and why_not_whole(cache.root):
            array = send_phase(run, job, "encode", None, sent)
        own = send_phase(run, job, "preprocess", before or array, sent, whatever=bool(before))
        further: dict[str, Any] = {"pid_started": own.pid_started, "host": own.host}
        if array:
            further |= {"array": array.job_id, "tasks": array.tasks}
        claims.write_claim(cache, claims.claim_of(run.name, own.job_id, job.cluster, **further))
        return False, own, None


def _others(
    cache: CachePaths, job: Job, is_alive: Callable[[claims.Claim], bool]
) -> launcher.Submitted | None:
    """The job that prepares the same data for another model: ours finds it done, or does it."""
    found = claims.other_claim(cache, job.cluster, is_alive)
    if found is None:
        return None
    return launcher.Submitted("preprocess", found.job_id, found.pid_started, found.host)


def send_phase(
    run: RunPaths,
    job: Job,
    phase: Phase,
    after: launcher.Submitted | None,
    sent: list[launcher.Submitted],
    *,
    whatever: bool = False,
) -> launcher.Submitted:
    """Send one phase and add it to `sent`, which is taken back when a later one is refused.

    `whatever` lets it begin behind `after` however that ends.
    """
    own = _submit_phase(run, job, phase, after, "afterany" if whatever else "afterok")
    sent.append(own)
    _note(run, job, own)
    return own


def _submit_phase(
    run: RunPaths, job: Job, phase: Phase, after: launcher.Submitted | None, how: str
) -> launcher.Submitted:
    if job.cluster == LOCAL:
        return launcher.submit_locally(run, phase, after.after if after else "")
    dependency = f"{how}:{after.job_id}" if after else None
    return launcher.submit_to_slurm(run, job, phase, dependency)


def _note(run: RunPaths, job: Job, sent: launcher.Submitted, owner: str | None = None) -> None:
    fields: dict[str, Any] = {
        "phase": sent.phase,
        "job_id": sent.job_id,
        "cluster": job.cluster,
    }
    if sent.pid_started:
        fields |= {"pid_started": sent.pid_started, "host": sent.host}
    if sent.tasks > 1:
        fields["tasks"] = sent.tasks
    if owner:
        record(run, "shares", run=owner, **fields)
    else:
        record(run, "submitted", **fields)
