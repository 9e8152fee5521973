"""A job against its cluster: what Slurm says now, what doctor has seen. Pure but for the folders.

What a partition never allows is refused before (`cluster/preflight.py`); here is the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from clusterlm.cluster.doctor.finding import Finding, bad, note, warn
from clusterlm.cluster.doctor.preemption import preemption
from clusterlm.cluster.doctor.words_of_slurm import written
from clusterlm.node.room import bytes_told, room_at
from clusterlm.spec.clusters import RESERVED
from clusterlm.spec.job import Job
from clusterlm.spec.probe import Probe, ProbedPartition


def findings_on_job(
    job: Job, probe: Probe, seen: Probe | None, runs: Path, needed: float | None
) -> Iterator[Finding]:
    """Everything that can be said without sbatch.

    Args:
        job: the resolved spec.
        probe: what Slurm says now.
        seen: what doctor saw when it looked at the nodes; None: it never did.
        runs: folder of the runs.
        needed: bytes of the checkpoints planned and the model; None when not known.
    """
    if chosen := probe.partition(job.resources.partition):
        yield from _partition(job, chosen)
        yield from _preemption(job, probe, chosen)
    yield from _account(job, probe, chosen)
    if probe.max_array_size is not None and job.encode_tasks > probe.max_array_size - 1:
        words = f"{job.encode_tasks} asked for, and arrays have at most {probe.max_array_size - 1}"
        yield bad(words, where="data.tasks")
    yield from _mounts(job)
    yield from _folders(job.cluster, seen, runs)
    yield from _disk(runs, needed)


def _partition(job: Job, one: ProbedPartition) -> Iterator[Finding]:
    asked, nodes = job.resources, job.resources.nodes + job.resources.spares
    if one.state != "UP":
        yield warn(f"partition {one.name} is {one.state}: the job waits until that changes")
    if one.max_nodes is not None and nodes > one.max_nodes:
        words = f"partition {one.name} allows {one.max_nodes} nodes a job, not {nodes}"
        yield bad(words, where="resources.nodes")
    elif one.nodes_up is not None and nodes > one.nodes_up:
        words = f"{one.nodes_up} of {one.nodes} nodes of {one.name} can be used now, not {nodes}"
        yield warn(f"{words}: the job waits until more come back", "see: sinfo -R")
    gpus = max((_count(gres) for gres in one.gres if gres.split(":")[0] == "gpu"), default=0)
    if asked.gpus_per_node > gpus and one.gres:
        words = f"nodes of {one.name} have {gpus} GPUs, not {asked.gpus_per_node}"
        yield bad(words, where="resources.gpus_per_node")
    if asked.mem and one.mem_mb and asked.mem > one.mem_mb:
        room = bytes_told(one.mem_mb * 2**20)
        yield warn(f"the smallest nodes of {one.name} have {room}", where="resources.mem")
    if asked.cpus_per_node and one.cpus and asked.cpus_per_node > one.cpus:
        words = f"the smallest nodes of {one.name} have {one.cpus}"
        yield warn(words, where="resources.cpus_per_node")


def _count(gres: str) -> int:
    last = gres.rpartition(":")[2]
    return int(last) if last.isdecimal() else 1


def _preemption(job: Job, probe: Probe, one: ProbedPartition) -> Iterator[Finding]:
    here = probe.model_copy(update={"partitions": (one,)})
    for finding in preemption(here):
        yield finding
        if not job.recovery.requeue:
            yield warn(
                "recovery.requeue is false: a preempted job is killed and does not come back",
                "leave it out, or go on by hand: clusterlm resume RUN",
            )


def _account(job: Job, probe: Probe, one: ProbedPartition | None) -> Iterator[Finding]:
    asked, where = job.resources.account, "resources.account"
    charged = asked or probe.default_account
    if asked and asked not in probe.accounts:
        yield _foreign(asked, probe, where)
    elif one and one.accounts and charged not in one.accounts:
        only = ", ".join(one.accounts)
        yield bad(f"partition {one.name} is only for {only}, not {charged}", where=where)
    qos = job.resources.qos
    if qos and probe.qos and qos not in probe.qos:
        yield bad(f"{qos} is none of yours; you have {', '.join(probe.qos)}", where="resources.qos")


def _foreign(account: str, probe: Probe, where: str) -> Finding:
    """Of an account that is not among the user's, as far as Slurm tells these."""
    if not probe.accounts:
        words = f"whether {account} is yours is not known: Slurm names no account of yours here"
        return note(words, where=where)
    words = f"{account} is none of yours; you have {', '.join(probe.accounts)}"
    if probe.enforces_accounts:
        return bad(words, where=where)
    return warn(words, "the cluster does not look at it and takes the job all the same", where)


def _mounts(job: Job) -> Iterator[Finding]:
    if job.image is None or job.runtime == "none":
        return
    for number, mount in enumerate(job.image.mounts):
        source = mount.partition(":")[0]
        if not os.path.exists(source):
            words = f"{source} is not there, so no container could start"
            yield bad(words, where=f"image.mounts[{number}]")


def _folders(cluster: str, seen: Probe | None, runs: Path) -> Iterator[Finding]:
    if seen is None or not seen.nodes:
        which = "" if cluster in RESERVED else f" --cluster {cluster}"
        advice = f"let doctor look at them: clusterlm doctor{which}"
        yield note(f"whether nodes see {runs} is not known", advice)
        return
    for folder in seen.folders:
        if folder.visible is False:
            yield bad(f"nodes do not see {folder.path}, as doctor found")


def _disk(runs: Path, needed: float | None) -> Iterator[Finding]:
    room = room_at(runs)
    if room is None or needed is None:
        return
    told = f"checkpoints and model need {bytes_told(needed)}"
    if needed > room.free:
        yield bad(
            f"{told}; {room.words}",
            "train.keep_checkpoints: fewer of them; or another folder: CLUSTERLM_RUNS_DIR",
        )
    else:
        yield note(f"{told}; {room.words}")


def limit_words(job: Job, probe: Probe) -> str:
    """`batch: 4 nodes, no limit`: where the job goes."""
    one = probe.partition(job.resources.partition)
    if one is None:
        return "no partition known"
    limit = f"longest job {written(one.max_time_s)}" if one.max_time_s else "no time limit"
    up = one.nodes if one.nodes_up is None else one.nodes_up
    return f"partition {one.name}: {up} of {one.nodes} nodes up, {limit}"
