"""The jobs of a run, one by one: what prepares its data, unless it is there or in the making."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from clusterlm.cluster import claims, launcher
from clusterlm.cluster.host import Host
from clusterlm.cluster.preflight import claim_is_alive
from clusterlm.data.whole import why_not_ready, why_not_whole
from clusterlm.node.files import read_jsonl
from clusterlm.paths import CachePaths, Phase, RunPaths
from clusterlm.spec.job import LOCAL, Job
from clusterlm.supervise.history import read_history, record
from clusterlm.supervise.owner import token_of


@dataclass
class Chain:
    """The jobs of one submit; another call with the same key goes on where this one was cut off."""

    run: RunPaths
    job: Job
    host: Host
    key: str
    tell: Callable[[str], None] = print
    sent: list[launcher.Submitted] = field(default_factory=list)
    """In order; taken back when a later one is refused."""

    def noted(self, phase: Phase) -> launcher.Submitted | None:
        """The job of a phase that an earlier call with this key has sent and noted."""
        token = token_of(self.key, phase)
        for event in read_jsonl(self.run.events)[0]:
            if event.get("event") == "submitted" and event.get("token") == token:
                ids = (str(event["job_id"]), event.get("pid_started"), event.get("host"))
                return launcher.Submitted(phase, *ids, tasks=int(event.get("tasks", 1)))
        return None


def prepare_data(
    chain: Chain, cache: CachePaths
) -> tuple[bool, launcher.Submitted | None, str | None]:
    """Find or start what prepares the data: (hit, job to wait for, run that owns the job)."""
    run, job = chain.run, chain.job
    with claims.locked(cache):
        own, array = chain.noted("preprocess"), chain.noted("encode")
        if why_not_ready(cache) is None:
            # what was sent before a call was cut off has made it
            chain.sent += [s for s in (array, own) if s]
            record(run, "cache_hit", fingerprint=cache.root.name)
            return own is None, None, None
        is_alive = partial(claim_is_alive, host=chain.host)
        claim = claims.live_claim(cache, job.cluster, is_alive)
        if claim and own is None:
            claims.join(cache, claim, run.name)
            shared = launcher.Submitted("preprocess", claim.job_id, claim.pid_started, claim.host)
            if claim.array:
                sharing = launcher.Submitted("encode", claim.array, tasks=claim.tasks)
                _note(chain, sharing, owner=claim.run)
            _note(chain, shared, owner=claim.run)
            return False, shared, claim.run
        before = _others(cache, job, is_alive)
        if array or (before is None and job.encode_tasks > 1 and why_not_whole(cache.root)):
            array = send_phase(chain, "encode", None)
        own = send_phase(chain, "preprocess", before or array, whatever=bool(before))
        further: dict[str, Any] = {"pid_started": own.pid_started, "host": own.host}
        if array:
            further |= {"array": array.job_id, "tasks": array.tasks}
        if claim is None or claim.run != run.name:
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
    chain: Chain, phase: Phase, after: launcher.Submitted | None, *, whatever: bool = False
) -> launcher.Submitted:
    """Send one phase, unless an earlier call with the same key has, and add it to what was sent.

    `whatever` lets it begin behind `after` however that ends.
    """
    own = chain.noted(phase)
    if own is None:
        own = _submit_phase(chain, phase, after, "afterany" if whatever else "afterok")
        _note(chain, own)
    chain.sent.append(own)
    return own


def _submit_phase(
    chain: Chain, phase: Phase, after: launcher.Submitted | None, how: str
) -> launcher.Submitted:
    token = token_of(chain.key, phase)
    if chain.job.cluster == LOCAL:
        return launcher.submit_locally(chain.run, phase, after.after if after else "", token=token)
    dependency = f"{how}:{after.job_id}" if after else None
    return launcher.submit_to_slurm(
        chain.run, chain.job, phase, dependency, host=chain.host, token=token, tell=chain.tell
    )


def _note(chain: Chain, sent: launcher.Submitted, owner: str | None = None) -> None:
    fields: dict[str, Any] = {
        "phase": sent.phase,
        "job_id": sent.job_id,
        "cluster": chain.job.cluster,
    }
    if sent.pid_started:
        fields |= {"pid_started": sent.pid_started, "host": sent.host}
    if sent.submitted:
        fields["submitted"] = sent.submitted
    if sent.tasks > 1:
        fields["tasks"] = sent.tasks
    if owner is None:
        record(chain.run, "submitted", **fields, token=token_of(chain.key, sent.phase))
        return
    known = read_history(chain.run).jobs.get(sent.phase)
    if known is None or known.job_id != sent.job_id:
        record(chain.run, "shares", run=owner, **fields)
