"""What the phases ask of the scheduler."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clusterlm.spec.base import (
    CONSTRAINT,
    LEFT_OUT,
    NODE_EXPR,
    SBATCH_EXTRA,
    SlurmWord,
    Spec,
)
from clusterlm.spec.units import Flag, MiB, Seconds

GpuRequest = Literal["gres", "gpus-per-node"]
SbatchExtra = Annotated[str, Field(pattern=SBATCH_EXTRA)]


class PreprocessResources(Spec):
    """One node for the data phase; what is left out is taken from `resources`."""

    cpus: int = Field(4, ge=1, le=1024)
    """CPU cores, and worker processes."""
    mem: MiB | None = None
    """Memory, such as 16G."""
    time: Seconds | None = None
    """Time limit; default: that of the training."""
    partition: SlurmWord | None = None
    """Partition; many sites have one for CPU work."""


class Resources(Spec):
    """Nodes, GPUs, time and where to run."""

    nodes: int = Field(1, ge=1, le=16384)
    """Nodes that train."""
    spares: int = Field(0, ge=0, le=64)
    """Further nodes held in the allocation: one that fails is replaced without a wait in the queue.
    """
    gpus_per_node: int = Field(0, ge=0, le=64)
    """GPUs on each node; 0 trains on the CPU."""
    processes_per_node: int | None = Field(None, ge=1, le=256)
    """Ranks on each node; default: one per GPU, or one on the CPU."""
    gpu_type: SlurmWord | None = None
    """GPU type as the site names it, for `gpu:TYPE:N`."""
    gpu_request: GpuRequest | None = None
    """Option of sbatch that asks for GPUs; default: what `clusterlm doctor` found the cluster to
    take, else gres."""
    cpus_per_node: int | None = Field(None, ge=1, le=4096)
    """CPU cores on each node; default: what the site gives."""
    mem: MiB | None = None
    """Memory on each node, such as 900G; default: what the site gives."""
    time: Seconds = 3600
    """Time limit of one job: 3h, 2d, or Slurm's 4-23:59:59. At the limit the run saves, requeues
    and resumes."""
    partition: SlurmWord | None = None
    """Partition; default: the cluster's."""
    account: SlurmWord | None = None
    """Account to charge."""
    qos: SlurmWord | None = None
    """Quality of service."""
    reservation: SlurmWord | None = None
    """Reservation."""
    constraint: Annotated[str, Field(pattern=CONSTRAINT)] | None = None
    """Node features, as in `--constraint`."""
    exclude: Annotated[str, Field(pattern=NODE_EXPR)] | None = None
    """Nodes never to use, as in `--exclude`: node[3,7]."""
    exclusive: Flag = False
    """Ask for whole nodes."""
    extra: list[SbatchExtra] = []
    """Further sbatch options, one each, such as `--comment=team-a`."""
    preprocess: PreprocessResources = LEFT_OUT
    """Resources of the data phase."""

    @property
    def ranks_per_node(self) -> int:
        """Processes that train on one node."""
        return self.processes_per_node or self.gpus_per_node or 1

    @property
    def world_size(self) -> int:
        """Processes that train."""
        return self.nodes * self.ranks_per_node
