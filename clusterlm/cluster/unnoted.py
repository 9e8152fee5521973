"""Jobs that a submit has sent and nobody has noted, because it was killed or had no answer.

Looked up before a run is sent again: a resume that finds no job on record may have one in the
queue. What is not there now must not come later either, beside the resumed one: its token is made
void, and the guard ends a job that comes with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from clusterlm.cluster.host import Host
from clusterlm.cluster.locks import alone
from clusterlm.cluster.sbatch_once import SETTLE_S, lock_of
from clusterlm.cluster.sent_jobs import Sent, look_up, sent_at
from clusterlm.errors import RunError
from clusterlm.node.files import read_jsonl
from clusterlm.paths import PHASES, Phase, RunPaths
from clusterlm.spec.job import LOCAL, Job
from clusterlm.supervise.history import record
from clusterlm.supervise.owner import VOID, Owner, owner_of, take, token_of


def note_unnoted(run: RunPaths, job: Job, host: Host) -> None:
    """Put on record what was sent last and is not.

    Raises:
        SlurmUnreachable: Slurm does not answer: there may be a job.
    """
    for phase, token in _unnoted(run):
        with alone(lock_of(run, token)):
            if not _note(run, job, phase, token, host) and sent_at(run, token):
                record(run, "not_sent", phase=phase, token=token)


def make_void(run: RunPaths) -> None:
    """Let no job of the last submit begin that is not on record.

    Raises:
        RunError: one has begun in this moment.
    """
    for _, token in _unnoted(run):
        owner = take(run, token, Owner(VOID))
        if owner != Owner(VOID):
            raise RunError(f"job {owner.job_id} of {run.name} has just started: nothing to resume")


def _unnoted(run: RunPaths) -> Iterator[tuple[Phase, str]]:
    """Phases that the last submit or resume may have sent, with their tokens."""
    events, _ = read_jsonl(run.events)
    noted = {e.get("token") for e in events if e.get("event") == "submitted"}
    keys = [
        str(e["key"]) for e in events if e.get("event") in ("created", "resumed") and "key" in e
    ]
    for phase in PHASES if keys else ():
        token = token_of(keys[-1], phase)
        if token not in noted:
            yield phase, token


def _note(run: RunPaths, job: Job, phase: Phase, token: str, host: Host) -> bool:
    owner = owner_of(run, token)
    since = sent_at(run, token)
    fields: dict[str, Any] = {"phase": phase, "cluster": job.cluster, "token": token}
    if phase == "encode":
        fields["tasks"] = job.encode_tasks
    if job.cluster == LOCAL and owner:
        record(run, "submitted", **asdict(owner), **fields)
        return True
    found = [owner.job_id] if owner else []
    if since and not found and job.cluster != LOCAL:
        sent = Sent(run, phase, token, since)
        found = look_up(sent, host, time.time())
        if not found:
            # what has reached the controller may not be in its queue yet
            time.sleep(max(0.0, min(SETTLE_S, since + SETTLE_S - time.time())))
            found = look_up(sent, host, time.time())
    if found:
        record(run, "submitted", job_id=found[0], submitted=since or 0.0, **fields)
    return bool(found)
