"""A profile: what is known of one cluster, so that a job.yaml need not say it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clusterlm.spec.base import (
    CONSTRAINT,
    HOST_NAME,
    MOUNT,
    NODE_EXPR,
    REMOTE_FOLDER,
    SBATCH_EXTRA,
    EnvName,
    EnvValue,
    Line,
    SlurmWord,
    Spec,
)
from clusterlm.spec.image import Runtime
from clusterlm.spec.resources import GpuRequest
from clusterlm.spec.units import Flag, MiB, Seconds

Fabric = Literal["infiniband", "roce", "efa", "slingshot", "ethernet"]


class ProfilePreprocess(Spec):
    """Defaults of `resources.preprocess`."""

    cpus: int | None = Field(None, ge=1, le=1024)
    mem: MiB | None = None
    time: Seconds | None = None
    partition: SlurmWord | None = None


class ProfileResources(Spec):
    """Defaults of a job's `resources`; what the job says itself wins."""

    partition: SlurmWord | None = None
    account: SlurmWord | None = None
    qos: SlurmWord | None = None
    reservation: SlurmWord | None = None
    constraint: Annotated[str, Field(pattern=CONSTRAINT)] | None = None
    exclude: Annotated[str, Field(pattern=NODE_EXPR)] | None = None
    exclusive: Flag | None = None
    gpu_type: SlurmWord | None = None
    gpus_per_node: int | None = Field(None, ge=0, le=64)
    cpus_per_node: int | None = Field(None, ge=1, le=4096)
    mem: MiB | None = None
    gpu_request: GpuRequest | None = None
    extra: list[Annotated[str, Field(pattern=SBATCH_EXTRA)]] | None = None
    preprocess: ProfilePreprocess | None = None


class Profile(Spec):
    """One cluster. With `host` it is reached over SSH; without, this machine is its login node."""

    host: Annotated[str, Field(pattern=HOST_NAME)] | None = None
    """Address of a login node, or a name of ssh_config. Leave it out on the login node itself."""
    user: SlurmWord | None = None
    """User name there; default: what ssh_config says, else yours here."""
    port: int | None = Field(None, ge=1, le=65535)
    """Port of sshd; default: what ssh_config says, else 22."""
    transport: Literal["auto", "openssh", "paramiko"] = "auto"
    """What makes the connection; `auto` takes the `ssh` program where there is one."""
    folder: Annotated[str, Field(pattern=REMOTE_FOLDER, max_length=512)] | None = None
    """Folder of clusterlm there, seen by every node: its software, runs, caches, images, what is
    uploaded. `~` is your home there. Needed with `host`."""
    runs_dir: Annotated[str, Field(pattern=REMOTE_FOLDER, max_length=512)] | None = None
    """Where runs lie; default: FOLDER/runs."""
    cache_dir: Annotated[str, Field(pattern=REMOTE_FOLDER, max_length=512)] | None = None
    """Where prepared data lies; default: FOLDER/cache."""
    images_dir: Annotated[str, Field(pattern=REMOTE_FOLDER, max_length=512)] | None = None
    """Where images lie; default: FOLDER/images."""
    python: Annotated[str, Field(pattern=REMOTE_FOLDER, max_length=512)] | None = None
    """Python 3.10 or newer there, on a folder that every node sees; default: the newest found. Jobs
    without an image train with its packages."""
    setup: list[Line] = []
    """Lines of shell that run before every command there, such as `module load slurm`."""
    runtime: Runtime | None = None
    """What starts containers there; the default of `image.runtime`."""
    mounts: list[Annotated[str, Field(pattern=MOUNT, max_length=4096)]] = []
    """Folders that every container sees, before those of the job."""
    resources: ProfileResources | None = None
    """Defaults of `resources`."""
    fabric: Fabric | None = None
    """Network between the nodes: its settings of NCCL and gloo come with it (`spec/fabrics.py`)."""
    env: dict[EnvName, EnvValue] = {}
    """Environment of every rank; a job's `env` wins."""
