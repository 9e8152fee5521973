"""How the script of a node is started in a container: what is mounted, what starts it. Pure.

One seam for pyxis, enroot, docker and apptainer: a `Container` says what, and `render` turns it
into `pyxis.options` (options of srun) or `container.sh` (started by srun or directly).

Every path that the job names is seen inside where it is outside, so that one spec.json means the
same on both sides. Only what the job writes is writable: the run, the caches, /tmp. A link inside a
source that leads out of it leads nowhere in a container: such a target is listed in `image.mounts`.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import clusterlm
from clusterlm.errors import ImageError, Problem, SpecError
from clusterlm.image_paths import ImagePaths
from clusterlm.node import image_build
from clusterlm.node.codes import EXIT_IMAGE
from clusterlm.paths import RunPaths, cache_dir
from clusterlm.spec.chat_template import is_file
from clusterlm.spec.image import Runtime
from clusterlm.spec.job import Job
from clusterlm.spec.model import Model
from clusterlm.spec.sources import CustomSource, Source

SCRATCH = "/tmp"
"""Of the node: what is compiled there outlives an attempt, and other nodes do not wait for it."""

PASSED_NAMES = (
    *("TZ", "TERM", "USER", "LOGNAME", "HF_HUB_OFFLINE", "HF_ENDPOINT"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
PASSED_PREFIXES = (
    *("CLUSTERLM_", "SLURM", "NCCL_", "UCX_"),
    *("CUDA_VISIBLE_", "ROCR_VISIBLE_", "GPU_DEVICE_"),
)
"""Of the environment of a step, what a container gets to see. PATH, LD_LIBRARY_PATH, HOME, LANG and
the certificates are the image's own; PYTHONPATH and the like would bring the host's packages in."""

_SET_BY_SUPERVISOR = (
    *("CLUSTERLM_ATTEMPT", "CLUSTERLM_ATTEMPT_DIR", "CLUSTERLM_NODES", "CLUSTERLM_RESUME_FROM"),
    *("CLUSTERLM_MASTER_ADDR", "CLUSTERLM_MASTER_PORT", "CLUSTERLM_BEAT_TO", "CLUSTERLM_TASK"),
)
_HINTS = {
    "pyxis": "does this node have pyxis? If not, take image.runtime: enroot or apptainer",
}

# what neither an fstab, a CSV, a list with : and , nor a shell reads in a special way
_PATH = re.compile(r"/[\w./@+=-]*")

# a mount on or above these would hide what the image brings; one below them, its programs
_OF_THE_IMAGE = (
    *("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64"),
    *("/usr/local/bin", "/usr/local/lib", "/usr/local/cuda", "/opt/clusterlm"),
    *("/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", "/run"),
)
_MAGIC = re.compile(r"[*?\[]")

# variables of the job that name a folder to write to
_CACHE_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "TORCH_HOME", "WANDB_DIR")


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
        recipe: digest of what the image was made from; empty when a file was given.
        mounts: what is seen inside, outermost first.
    """

    runtime: Runtime
    image: str
    recipe: str
    mounts: tuple[Mount, ...]


def runtime_of(job: Job) -> Runtime:
    """What starts the container of a job; "none" when it runs in the current Python."""
    return job.runtime


def image_of(job: Job, paths: ImagePaths | None) -> str:
    """What the runtime starts: the path of a file, or a tag of the local docker.

    Args:
        job: with an `image` section.
        paths: of the image that `build-image` makes; None when `image.file` is given.
    """
    assert job.image is not None
    if job.image.file:
        return job.image.file
    if paths is None:
        raise ImageError(
            "the image of this job is not known\n  make it:  clusterlm build-image JOB"
        )
    files = {"docker": paths.tag, "apptainer": str(paths.sif)}
    image = files.get(runtime_of(job), str(paths.squashfs))
    if runtime_of(job) != "docker" and not _PATH.fullmatch(image):
        raise ImageError(
            f"the images folder {str(paths.squashfs.parent)!r} has a character that srun and "
            "enroot cannot carry\n"
            "  set CLUSTERLM_IMAGES_DIR to a folder of letters, digits and . _ / @ + = -"
        )
    return image


def container_of(job: Job, run: RunPaths, recipe: str, image: str) -> Container | None:
    """What the phases of a run are started in; None for the current Python.

    Raises:
        SpecError: a path that no runtime can carry, or that would hide the image's own files.
    """
    runtime = runtime_of(job)
    if runtime == "none":
        return None
    return Container(runtime, image, recipe, _mounts_of(job, run))


def words_for_templates(container: Container, job: Job) -> dict[str, Any]:
    """What the templates say of a container, beside what they say of every run."""
    recipe = container.recipe or hashlib.sha256(container.image.encode()).hexdigest()
    return {
        "image": container.image,
        "recipe": container.recipe,
        "mounts": container.mounts,
        "python": str(image_build.PYTHON),
        "record": str(image_build.RECORD),
        "environment": str(image_build.ENVIRONMENT),
        "code_digest": image_build.code_digest(Path(clusterlm.__file__).parent),
        "exit_code": EXIT_IMAGE,
        "hint": _HINTS.get(container.runtime, "make one: clusterlm build-image JOB"),
        "gpus": job.resources.gpus_per_node,
        "scratch": SCRATCH,
        "scratch_name": recipe[:16],
        "hf_home": str(cache_dir() / "huggingface"),
        "passed": [*PASSED_NAMES, *(f"{prefix}*" for prefix in PASSED_PREFIXES)],
        "own_names": sorted({*_SET_BY_SUPERVISOR, *job.env}),
    }


def is_passed(name: str) -> bool:
    """Whether a container gets to see this variable of a step's environment."""
    return name in PASSED_NAMES or name.startswith(PASSED_PREFIXES)


_Wish = tuple[str, Mount]
"""Where in the job it comes from, and what it is."""


def _mounts_of(job: Job, run: RunPaths) -> tuple[Mount, ...]:
    wishes = list(_wishes(job, run))
    problems = [Problem(where, text) for where, mount in wishes if (text := _refusal(mount))]
    problems += _conflicts(wishes)
    if problems:
        raise SpecError("job.yaml", list(dict.fromkeys(problems)))
    return tuple(_needed(mount for _, mount in wishes))


def _wishes(job: Job, run: RunPaths) -> Iterator[_Wish]:
    yield "CLUSTERLM_RUNS_DIR", _same(str(run.root))
    yield "CLUSTERLM_CACHE_DIR", _same(str(cache_dir()))
    for name in _CACHE_VARIABLES:
        if job.env.get(name, "").startswith("/"):
            yield f"env.{name}", _same(job.env[name])
    own = [_parsed(text) for text in job.image.mounts] if job.image else []
    if SCRATCH not in {mount.target for mount in own}:
        yield "/tmp", _same(SCRATCH)
    for where, path in _named_paths(job):
        # a hub id is no path
        if path.startswith("/"):
            yield where, _same(path, read_only=True)
    for number, mount in enumerate(own):
        yield f"image.mounts[{number}]", mount


def _same(path: str, *, read_only: bool = False) -> Mount:
    whole = posixpath.normpath(path)
    return Mount(whole, whole, read_only)


def _parsed(text: str) -> Mount:
    # /data, /data:/inside or /data:/inside:ro
    source, target, rights = (*text.split(":"), "", "")[:3]
    return Mount(posixpath.normpath(source), posixpath.normpath(target or source), rights == "ro")


def _named_paths(job: Job) -> Iterator[tuple[str, str]]:
    if data := job.data:
        yield from _sources("data", data.sources)
        yield from _sources("data.validation", data.validation.sources)
        yield "data.tokenizer.name", _with_blobs(data.tokenizer.name or "")
        template = data.tokenizer.chat_template
        if template is not None and is_file(template):
            yield "data.tokenizer.chat_template", template
    if job.model:
        yield from _of_model(job.model)
    if isinstance(job.train.deepspeed, str):
        yield "train.deepspeed", job.train.deepspeed
    if job.train.command:
        folder = posixpath.dirname(job.train.command[0])
        # /usr/bin/env is the image's own
        if not _hides(folder):
            yield "train.command[0]", folder


def _of_model(model: Model) -> Iterator[tuple[str, str]]:
    yield "model.name", _with_blobs(model.name or "")
    if model.adapter and model.adapter.continue_from:
        yield "model.adapter.continue_from", model.adapter.continue_from
    new = model.from_scratch.class_ if model.from_scratch else None
    for where, name in (("model.class", model.class_), ("model.from_scratch.class", new)):
        if name and ":" in name:
            # with its neighbours, which it may import
            yield where, posixpath.dirname(name.rpartition(":")[0])


def _sources(where: str, sources: Iterable[Source]) -> Iterator[tuple[str, str]]:
    for number, source in enumerate(sources):
        place = f"{where}.sources[{number}]"
        if source.path is not None:
            yield f"{place}.path", _root_of(source.path)
        if isinstance(source, CustomSource):
            # with its neighbours, which it may import
            yield f"{place}.converter", posixpath.dirname(source.converter.rpartition(":")[0])


def _root_of(path: str) -> str:
    """The folder before the first part of a glob; a path without magic is itself."""
    parts = PurePosixPath(path).parts
    first = next((i for i, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
    return str(PurePosixPath(*parts[:first]))


def _with_blobs(path: str) -> str:
    """In the hub's cache the files of a snapshot are links to `blobs` beside it.

    # .../hub/models--org--name/snapshots/0123abcd -> .../hub/models--org--name
    """
    return re.sub(r"(/(?:models|datasets)--[^/]+)/snapshots(/.*)?$", r"\1", path)


def _refusal(mount: Mount) -> str | None:
    for path in (mount.source, mount.target):
        if not _PATH.fullmatch(path):
            return (
                f"{path!r} cannot be mounted into a container: in its path only letters, digits "
                "and . _ @ + = - can be carried by every runtime; rename it, or put a link with "
                "such a name to it"
            )
    if _hides(mount.target):
        return (
            f"{mount.target} inside the container is the image's own; "
            "put what is needed there into a folder of its own, such as /data"
        )
    return None


def _hides(target: str) -> bool:
    return target == "/" or any(
        _is_within(target, own) or _is_within(own, target) for own in _OF_THE_IMAGE
    )


def _conflicts(wishes: list[_Wish]) -> Iterator[Problem]:
    first: dict[str, _Wish] = {}
    for where, mount in wishes:
        before, other = first.setdefault(mount.target, (where, mount))
        if other.source != mount.source:
            text = f"{mount.target} inside is {other.source} already, for {before}"
            yield Problem(where, text)


def _needed(mounts: Iterable[Mount]) -> list[Mount]:
    """Outermost first, without those that the mount around them shows with the same rights."""
    kept: list[Mount] = []
    # of two for one place the writable one comes first, and covers the other
    for mount in sorted(set(mounts), key=lambda m: (m.target.count("/"), m.target, m.read_only)):
        around = [k for k in kept if _is_within(mount.target, k.target)]
        nearest = max(around, key=lambda k: len(k.target), default=None)
        if nearest is None or not _shows(nearest, mount):
            kept.append(mount)
    return kept


def _shows(outer: Mount, inner: Mount) -> bool:
    below = posixpath.relpath(inner.target, outer.target)
    is_same = posixpath.normpath(posixpath.join(outer.source, below)) == inner.source
    return is_same and (inner.read_only or not outer.read_only)


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
