"""The image of a job, as a submit needs it: the container to render, the record to lock.

Without an `image` section, or with `runtime: none`, both are empty and the phases run in the
current Python.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from clusterlm.cluster.host import Host
from clusterlm.cluster.images.build import ensure_image, find_image
from clusterlm.container import Container, container_of, image_of, runtime_of
from clusterlm.image_paths import ImagePaths
from clusterlm.paths import RunPaths
from clusterlm.spec.job import Job


@dataclass(frozen=True)
class Ready:
    """What the phases run in, and what is known of it."""

    container: Container | None = None
    lock: dict[str, Any] | None = None


def planned_image(job: Job, run: RunPaths) -> Ready:
    """The container as it will be, whether its image is there or not; asks no daemon."""
    if runtime_of(job) == "none":
        return Ready()
    return Ready(_container(job, run, find_image(job)))


def ready_image(
    job: Job, run: RunPaths, host: Host, *, may_build: bool, tell: Callable[[str], None]
) -> Ready:
    """The container, its image built and imported.

    Raises:
        ImageError: the image is not there and may not, or cannot, be built.
    """
    # first what costs nothing: a mount that no runtime can carry is refused before a build
    container = planned_image(job, run).container
    if container is None:
        return Ready()
    record = ensure_image(job, host, tell=tell, may_build=may_build)
    known = asdict(record) if record else {"file": container.image}
    return Ready(container, {"runtime": container.runtime, **known})


def _container(job: Job, run: RunPaths, paths: ImagePaths | None) -> Container | None:
    recipe = paths.recipe if paths else ""
    return container_of(job, run, recipe, image_of(job, paths))
