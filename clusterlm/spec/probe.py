"""What `clusterlm doctor` found on a cluster: `probes/NAME.json` beside clusters.yaml.

Filled by `cluster/doctor`, read wherever a job is made to fit its cluster. None means: not found
out. A file of an older or newer clusterlm is read as far as it is understood; one that is damaged
is as good as none, since doctor can be run again.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from clusterlm.node.files import write_atomically
from clusterlm.spec.local_folders import clusters_file
from clusterlm.spec.resources import GpuRequest


class _Found(BaseModel):
    # defer_build: no validator at import, as for every section of a job
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class ProbedPartition(_Found):
    """One partition."""

    name: str
    nodes: int = 0
    max_time_s: int | None = None
    """None: no limit, or not known."""
    default_time_s: int | None = None
    preempt_mode: str | None = None
    """Slurm's word: OFF, CANCEL, REQUEUE, SUSPEND."""
    grace_s: int | None = None
    """What a preempted job gets between SIGTERM and SIGKILL."""
    gres: tuple[str, ...] = ()
    """As Slurm writes them: gpu:a100:8."""
    is_default: bool = False
    state: str = "UP"
    mem_mb: int | None = None
    """Memory of its smallest node."""
    cpus: int | None = None
    """CPUs of its smallest node."""
    accounts: tuple[str, ...] = ()
    """The only accounts that may use it; empty: all."""
    nodes_up: int | None = None
    """Nodes that are neither down nor drained."""
    max_nodes: int | None = None
    """Most nodes of one job; None: no limit, or not known."""
    priority_tier: int | None = None
    """Jobs of a higher one may preempt, or at least go first."""

    @property
    def has_gpus(self) -> bool:
        """Slurm counts GPUs on some of its nodes."""
        return any(name.split(":")[0] == "gpu" for name in self.gres)


class ProbedQos(_Found):
    """One quality of service."""

    name: str
    grace_s: int | None = None
    preempt_mode: str | None = None
    """None: that of the cluster."""
    max_time_s: int | None = None
    preempts: tuple[str, ...] = ()


class ProbedNode(_Found):
    """One compute node, as the probe job saw it."""

    host: str
    python: str | None = None
    """Path and version of what ran the probe there."""
    clock_skew_s: float | None = None
    """Ahead of the login node."""
    interface: str | None = None
    """What carries the route to the other node."""
    enroot: str | None = None
    apptainer: str | None = None
    gpus: tuple[str, ...] = ()
    cpus: int | None = None
    mem_mb: int | None = None


class ProbedMachine(_Found):
    """The machine that doctor ran on, for `cluster: local`."""

    host: str
    python: str
    cpus: int
    mem_mb: int | None = None
    gpus: tuple[str, ...] = ()
    docker: str | None = None
    """Version of the daemon; empty text: none answers."""
    torch: str | None = None


class ProbedFolder(_Found):
    """One folder, looked at from this side and from a compute node."""

    path: str
    visible: bool | None = None
    """A compute node sees it, as the same folder."""
    fsync_rename: bool | None = None
    """A file can be written, flushed and renamed there from a compute node."""
    fsync_rename_s: float | None = None
    """The slowest of a few times that took."""
    free_bytes: int | None = None
    free_inodes: int | None = None


class NodesTest(_Found):
    """The all-reduce over two nodes."""

    ok: bool
    text: str = ""
    """What came of it, in words."""
    nodes: tuple[str, ...] = ()
    seconds: float | None = None
    gb_per_s: float | None = None


class Probe(_Found):
    """One cluster as doctor saw it."""

    time: float = 0.0
    """When, unix seconds."""
    clusterlm: str | None = None
    """Version that looked."""
    slurm_version: str | None = None
    programs: dict[str, bool] = {}
    """sbatch, squeue, ...: whether it is there."""
    accounting: bool | None = None
    """sacct answers."""
    partitions: tuple[ProbedPartition, ...] = ()
    accounts: tuple[str, ...] = ()
    """Accounts that the user may charge; empty: not known, or none needed."""
    qos: tuple[str, ...] = ()
    gpu_requests_accepted: tuple[GpuRequest, ...] = ()
    """Ways to ask for GPUs that sbatch took; empty: not tried."""
    gres_names: tuple[str, ...] = ()
    """gpu:a100 and so on, without counts."""
    preempt_mode: str | None = None
    preempt_type: str | None = None
    preempt_parameters: str | None = None
    kill_wait_s: int | None = None
    requeue: bool | None = None
    """JobRequeue: a job may be requeued unless it says otherwise."""
    max_array_size: int | None = None
    pyxis: bool | None = None
    enroot: str | None = None
    """Version on a compute node; empty text: it is not there."""
    apptainer: str | None = None
    folders: tuple[ProbedFolder, ...] = ()
    clock_skew_s: float | None = None
    """Largest difference between the clocks of a node and the login node."""
    python: str | None = None
    """Python on a compute node that runs clusterlm, with its version."""
    nodes_test: NodesTest | None = None
    cluster_name: str | None = None
    """As Slurm calls itself."""
    default_account: str | None = None
    qos_limits: tuple[ProbedQos, ...] = ()
    enforces_limits: bool | None = None
    """EnforcePartLimits: sbatch refuses what a partition never allows; else it waits for ever."""
    enforces_accounts: bool | None = None
    """A job needs an account of the user's."""
    hides_jobs: bool | None = None
    """PrivateData: other users' jobs cannot be seen."""
    min_job_age_s: int | None = None
    """So long the controller remembers an ended job."""
    nodes: tuple[ProbedNode, ...] = ()
    """Those that the probe job looked at."""
    nodes_time: float | None = None
    """When it did; `time` may be later."""
    machine: ProbedMachine | None = None
    notes: tuple[str, ...] = ()
    """What could not be found out, and why."""

    def partition(self, name: str | None) -> ProbedPartition | None:
        """The partition of that name, or the default one."""
        for one in self.partitions:
            if one.name == name or (name is None and one.is_default):
                return one
        return None


def probe_file(name: str) -> Path:
    """Where the probe of a cluster lies."""
    return clusters_file().parent / "probes" / f"{name}.json"


def read_probe(name: str) -> Probe | None:
    """What doctor found last; None when it never looked, or the file cannot be used."""
    try:
        return Probe.model_validate_json(probe_file(name).read_bytes())
    except (OSError, ValidationError):
        return None


def write_probe(name: str, probe: Probe) -> Path:
    """Keep what doctor found; gives the file."""
    path = probe_file(name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, probe.model_dump_json(indent=1) + "\n")
    return path


def forget_probe(name: str) -> None:
    """Remove what doctor found, if it is there."""
    probe_file(name).unlink(missing_ok=True)


def has_probe(name: str) -> bool:
    """Whether doctor has looked."""
    return os.path.isfile(probe_file(name))
