"""How the script of a node is started in a container: what is mounted, what starts it. Pure.

One seam for pyxis, enroot, docker and apptainer: a `Container` says what, and `render` turns it
into `pyxis.options` (options of srun) or `container.sh` (started by srun or directly).
"""

from __future__ import annotations

from dataclasses import dataclass

from clusterlm.spec.image import Runtime
from clusterlm.spec.job import LOCAL, Job


@dataclass(frozen=True)
class Mount:
    """A folder or file of the host, and where it is seen inside."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Container:
    """What a node's script runs in.

    Attributes:
        runtime: never "none".
        image: absolute path of the .sqsh (pyxis, enroot) or .sif (apptainer), tag for docker.
        recipe: digest of what the image was made from, or the file's own name when it was given.
        mounts: what is seen inside, outermost first.
    """

    runtime: Runtime
    image: str
    recipe: str
    mounts: tuple[Mount, ...]


def runtime_of(job: Job) -> Runtime:
    """What starts the container of a job; "none" when it runs in the current Python."""
    if job.image is None:
        return "none"
    return job.image.runtime or ("docker" if job.cluster == LOCAL else "pyxis")
