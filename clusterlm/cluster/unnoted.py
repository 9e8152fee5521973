"""Jobs that a killed submit has sent and nobody has noted: looked up before a run is sent again.

Without it a resume after `kill -9` could find no job on record while one waits in the queue.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from clusterlm.cluster.host import Host
from clusterlm.cluster.sent_jobs import Sent, look_up, sent_at
from clusterlm.node.files import read_jsonl
from clusterlm.paths import PHASES, Phase, RunPaths
from clusterlm.spec.job import LOCAL, Job
from clusterlm.supervise.history import record
from clusterlm.supervise.owner import owner_of, token_of


def note_unnoted(run: RunPaths, job: Job, host: Host) -> None:
    """Put on record what was sent last and is not.

    Raises:
        SlurmUnreachable: Slurm does not answer: there may be a job.
    """
    events, _ = read_jsonl(run.events)
    noted = {e.get("token") for e in events if e.get("event") == "submitted"}
    keys = [str(e["key"]) for e in events if e.get("key")]
    for phase in PHASES if keys else ():
        token = token_of(keys[-1], phase)
        if token not in noted:
            _note(run, job, phase, token, host)


def _note(run: RunPaths, job: Job, phase: Phase, token: str, host: Host) -> None:
    fields: dict[str, Any] = {"phase": phase, "cluster": job.cluster, "token": token}
    if phase == "encode":
        fields["tasks"] = job.encode_tasks
    owner = owner_of(run, token)
    if job.cluster == LOCAL:
        if owner:
            record(run, "submitted", **asdict(owner), **fields)
        return
    since = sent_at(run, token)
    if since is None:
        return
    found = [owner.job_id] if owner else look_up(Sent(run, phase, token, since), host, time.time())
    if found:
        record(run, "submitted", job_id=found[0], submitted=since, **fields)
