"""The container: what is built on top of which base, and what starts it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clusterlm.spec.base import (
    APT_NAME,
    IMAGE_REF,
    MOUNT,
    PIP_REQ,
    EnvName,
    EnvValue,
    Line,
    Spec,
)
from clusterlm.spec.bases import DEFAULT_BASE

Runtime = Literal["pyxis", "enroot", "docker", "apptainer", "none"]


class Image(Spec):
    """Leave the section out to run in the current Python."""

    base: Annotated[str, Field(pattern=IMAGE_REF)] = DEFAULT_BASE
    """Image to build on; its torch is never touched."""
    file: Line | None = None
    """A .sqsh or .sif that `clusterlm build-image` made before: nothing is built."""
    apt: list[Annotated[str, Field(pattern=APT_NAME)]] = []
    """Debian packages to add."""
    pip: list[Annotated[str, Field(pattern=PIP_REQ)]] = []
    """Python packages to add; never torch."""
    requirements: Line | None = None
    """A requirements.txt, added to `pip`."""
    wheelhouse: Line | None = None
    """Folder of wheels: pip takes packages from there alone, for sites without a network."""
    env: dict[EnvName, EnvValue] = {}
    """Environment variables of the image."""
    build_secrets: list[EnvName] = []
    """Names of environment variables that only the build sees, such as PIP_INDEX_URL."""
    builder: Literal["docker", "podman", "buildah"] | None = None
    """What builds; default: the first of them that is here."""
    registry: Annotated[str, Field(pattern=IMAGE_REF)] | None = None
    """Repository to push to, such as registry.example/team/clusterlm; enroot then imports it from
    there and not from the local daemon."""
    import_on: Literal["here", "slurm"] = "here"
    """Where enroot imports: on this machine, or in a one-node job (needs `registry`)."""
    runtime: Runtime | None = None
    """What starts the container on a node; default: docker with cluster: local, else pyxis."""
    mounts: list[Annotated[str, Field(pattern=MOUNT)]] = []
    """Further folders to see inside: /data, /data:/inside or /data:/inside:ro. The run, the caches
    and every path that the job names are mounted without being listed."""
