"""The container: what is built on top of which base, and what starts it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clusterlm.spec.base import (
    APT_NAME,
    IMAGE_FILE,
    IMAGE_REF,
    MOUNT,
    PIP_REQ,
    REPOSITORY,
    EnvName,
    ImageEnvValue,
    Line,
    Spec,
)
from clusterlm.spec.bases import DEFAULT_BASE

Runtime = Literal["pyxis", "enroot", "docker", "apptainer", "none"]


class Image(Spec):
    """Leave the section out to run in the current Python."""

    base: Annotated[str, Field(pattern=IMAGE_REF)] = DEFAULT_BASE
    """Image to build on; its torch is never touched. It decides which Python there is, and so which
    packages can be installed: `clusterlm check` refuses what a known base cannot hold."""
    file: Annotated[str, Field(pattern=IMAGE_FILE, max_length=4096)] | None = None
    """A .sqsh (pyxis, enroot) or .sif (apptainer) that `clusterlm build-image` made before: nothing
    is built."""
    apt: list[Annotated[str, Field(pattern=APT_NAME)]] = []
    """Debian packages to add."""
    pip: list[Annotated[str, Field(pattern=PIP_REQ)]] = []
    """Python packages to add; the training stack comes by itself. Never torch. From git:
    `name@git+https://host/path@commit`, without a password; a branch instead of a commit may move
    without the image being built again. NVIDIA's bases from 25.03 on pin everything that they bring
    in /etc/pip/constraint.txt, numpy too: their torch goes with these versions."""
    requirements: Line | None = None
    """A requirements.txt, added to `pip`: requirements and comments, no options of pip."""
    wheelhouse: Line | None = None
    """Folder of wheels: pip takes packages from there alone, for sites without a network."""
    env: dict[EnvName, ImageEnvValue] = {}
    """Environment variables of the image, written out in full. What is of one job alone, or has
    quotes in it, stands in the job's `env`."""
    build_secrets: list[EnvName] = []
    """Names of environment variables that only the build sees, such as PIP_INDEX_URL."""
    builder: Literal["docker", "podman", "buildah"] | None = None
    """What builds; default: the first of them that is here."""
    registry: Annotated[str, Field(pattern=REPOSITORY)] | None = None
    """Repository to push to, such as registry.example/team/clusterlm; enroot then imports it from
    there and not from the local daemon."""
    import_on: Literal["here", "slurm"] = "here"
    """Where enroot imports: on this machine, or in a one-node job (needs `registry`)."""
    runtime: Runtime | None = None
    """What starts the container on a node; default: docker with cluster: local, else pyxis."""
    mounts: list[Annotated[str, Field(pattern=MOUNT, max_length=4096)]] = []
    """Further folders to see inside: /data, /data:/inside or /data:/inside:ro; `~` is your home.
    The run, the caches and every path that the job names are mounted without being listed."""
