"""Rules about the image: what can be built, what can start it, where; collected in `rules.py`.

Some look at the disk: the requirements.txt, the wheelhouse and the image file are read on the
machine that submits. Nothing here asks a daemon, a registry or the network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from clusterlm.errors import Problem
from clusterlm.spec import bases, requirements, variables
from clusterlm.spec.image import Image
from clusterlm.spec.job import LOCAL, Job
from clusterlm.spec.wording import shown

BUILT_FROM = (
    *("base", "apt", "pip", "requirements", "wheelhouse", "env", "build_secrets"),
    *("builder", "registry", "import_on"),
)
"""Keys that mean nothing for an image that is built already."""
FILE_ENDINGS = {"pyxis": (".sqsh",), "enroot": (".sqsh",), "apptainer": (".sif",)}

# nvidia-ml-py only reads counters: a newer one harms nothing
OF_EVERY_BASE = r"torch|torchvision|torchaudio|(pytorch-)?triton|nvidia-(?!ml-py$|pyindex$).+"
OF_NVIDIAS_BASE = r"flash-attn|transformer-engine(-.+)?|apex|torch-tensorrt"
OF_THE_BASE_BY_APT = r"(python3-torch|nvidia-|libnvidia-|cuda|libcudnn|libnccl).*"

BROUGHT = {
    "python": "the base decides Python: choose another image.base",
    "clusterlm": "clusterlm comes by itself, the version that you run; leave it out",
}
"""What no requirement of the user's can choose."""

OWN_TARGETS = ("/opt/clusterlm", "/proc", "/sys", "/dev")
"""Folders of an image, with all below them, that nothing may be mounted over."""
LARGEST_REQUIREMENTS = 2**20


class _Wish(NamedTuple):
    """A package that is asked for: where, the words before a message, the requirement itself."""

    where: str
    lead: str
    text: str


def image_file_stands_alone(job: Job) -> Iterator[Problem]:
    """An image that is built already is not built again."""
    if job.image is None or job.image.file is None:
        return
    for key in BUILT_FROM:
        if key in job.image.model_fields_set and getattr(job.image, key):
            message = "image.file is built already, so this says nothing; leave out one of them"
            yield Problem(f"image.{key}", message)


def image_file_fits_its_runtime(job: Job) -> Iterator[Problem]:
    """The file is there, and of the kind that the runtime starts."""
    if job.image is None or job.image.file is None:
        return
    where, file, runtime = "image.file", job.image.file, job.runtime
    endings = FILE_ENDINGS.get(runtime, ())
    if runtime == "docker":
        message = "docker starts images of its daemon, no files; write runtime: enroot or apptainer"
        yield Problem(where, f"{message}, or leave this out")
    elif endings and not file.endswith(endings):
        wanted = " or ".join(endings)
        yield Problem(where, f"{shown(file)} is no {wanted}, which runtime: {runtime} starts")
    elif not os.path.isfile(file):
        yield Problem(where, f"there is no file {shown(file)}; clusterlm build-image makes one")


def runtime_goes_with_the_cluster(job: Job) -> Iterator[Problem]:
    """What starts a container must be there."""
    if job.runtime == "pyxis" and job.cluster == LOCAL:
        message = "pyxis is a plugin of srun, and cluster: local has none; write docker"
        yield Problem("image.runtime", message)


def import_has_what_it_needs(job: Job) -> Iterator[Problem]:
    """An import in a job pulls from a registry, for something that reads a file."""
    if job.image is None or job.image.import_on != "slurm":
        return
    where = "image.import_on"
    if job.cluster == LOCAL:
        yield Problem(where, "slurm needs cluster: slurm, or a cluster of yours; write here")
    elif job.image.registry is None:
        message = "a node cannot see the daemon that built the image; add image.registry"
        yield Problem(where, f"{message}, or write here")
    elif job.runtime == "docker":
        yield Problem(where, "docker starts the image itself: nothing is imported; leave this out")


def image_never_replaces_torch(job: Job) -> Iterator[Problem]:
    """The base brings Python, torch and CUDA, built for each other; clusterlm brings itself."""
    if job.image is None:
        return
    reason = "comes with the base image, built for its CUDA; leave it out, or choose another base"
    is_nvidias = bases.known_base(job.image.base) is not None
    pattern = f"{OF_EVERY_BASE}|{OF_NVIDIAS_BASE}" if is_nvidias else OF_EVERY_BASE
    for wish in _wishes(job.image):
        name = requirements.name_of(wish.text)
        if name in BROUGHT:
            yield Problem(wish.where, f"{wish.lead}{BROUGHT[name]}")
        elif re.fullmatch(pattern, name):
            yield Problem(wish.where, f"{wish.lead}{name} {reason}")
    for number, package in enumerate(job.image.apt):
        name = package.partition("=")[0]
        if re.fullmatch(OF_THE_BASE_BY_APT, name):
            yield Problem(f"image.apt[{number}]", f"{name} {reason}")


def base_can_hold_what_is_added(job: Job) -> Iterator[Problem]:
    """The base's Python and torch decide which versions there can be."""
    if job.image is None:
        return
    for wish in _wishes(job.image):
        name, specifiers = requirements.name_of(wish.text), requirements.specifiers_of(wish.text)
        reason = bases.nearest(job.image.base, name, specifiers)
        if reason:
            yield Problem(wish.where, wish.lead + reason)


def requirements_can_be_installed(job: Job) -> Iterator[Problem]:
    """The file is there, and every line of it can be installed in an image."""
    if job.image is None or job.image.requirements is None:
        return
    where, path = "image.requirements", job.image.requirements
    try:
        lines = _read_lines(path)
    except FileNotFoundError:
        yield Problem(where, f"there is no file {shown(path)}")
        return
    except (OSError, ValueError) as error:
        yield Problem(where, f"{shown(path)} cannot be read: {error}")
        return
    for number, line in lines:
        reason = requirements.reason_to_refuse(line, job.image.build_secrets)
        if reason:
            yield Problem(where, f"line {number}: {shown(line)} {reason}")


def wheelhouse_holds_packages(job: Job) -> Iterator[Problem]:
    """A folder of wheels is there, and nothing is asked for that only a network has."""
    if job.image is None or job.image.wheelhouse is None:
        return
    where, folder = "image.wheelhouse", job.image.wheelhouse
    if not os.path.isdir(folder):
        yield Problem(where, f"there is no folder {shown(folder)}")
    elif not any(name.endswith(".whl") for name in os.listdir(folder)):
        message = f"{shown(folder)} has no .whl; fill it by pip download, with the base's Python"
        yield Problem(where, message)
    for wish in _wishes(job.image):
        if "://" in wish.text:
            message = f"{wish.lead}{requirements.name_of(wish.text)} comes from a network, but with"
            hint = "pip sees only its wheels; put one there and write the name"
            yield Problem(wish.where, f"{message} image.wheelhouse {hint}")


def image_env_is_free_and_open(job: Job) -> Iterator[Problem]:
    """The image's variables leave the base's alone, and hold nothing that must not be read."""
    if job.image is None:
        return
    for name, value in job.image.env.items():
        where = f"image.env.{name}"
        if variables.is_launchers(name):
            yield Problem(where, "is given by the launcher; choose another name")
        elif variables.is_bases(name):
            message = "is the base's own, and what it brings would not be found; leave it out"
            yield Problem(where, message)
        elif variables.holds_secret(name, value):
            message = "looks like a secret, and whoever has the image can read it; use"
            instead = f"secrets: [{name}] for the job, image.build_secrets: [{name}] for the build"
            yield Problem(where, f"{message} {instead}")


def build_secrets_are_names(job: Job) -> Iterator[Problem]:
    """A secret's value never stands in a job.yaml; the message must not repeat it."""
    if job.image is None:
        return
    for number, name in enumerate(job.image.build_secrets):
        where = f"image.build_secrets[{number}]"
        if variables.is_secret_itself(name):
            yield Problem(where, "looks like the value of a secret; write only its variable's name")
        elif variables.is_launchers(name) or variables.is_bases(name):
            yield Problem(where, f"{name} is no secret: the build has its own; leave it out")
        elif name in job.image.env:
            message = f"{name} is in image.env too, and so in the image; take it out of there"
            yield Problem(where, message)
        elif name in job.image.build_secrets[:number]:
            yield Problem(where, f"{name} is named twice; keep one")


def mounts_have_places_of_their_own(job: Job) -> Iterator[Problem]:
    """Each folder is there, is seen at one place, and hides nothing that a container needs."""
    seen: dict[str, str] = {}
    for number, mount in enumerate(job.image.mounts if job.image else []):
        where = f"image.mounts[{number}]"
        source, target = mount_of(mount)
        if ".." in mount.split("/"):
            yield Problem(where, f"{mount} goes up by ..; write where it leads")
        elif target == "/" or any(_is_below(target, own) for own in OWN_TARGETS):
            message = f"{target} is the image's own; mount it elsewhere, as {source}:/mnt/data"
            yield Problem(where, message)
        elif target in seen:
            yield Problem(where, f"{target} is the place of {seen[target]} already")
        elif job.cluster == LOCAL and not os.path.exists(source):
            yield Problem(where, f"there is no file or folder {shown(source)}")
        seen.setdefault(target, source)


def notes_on(job: Job) -> list[str]:
    """What is right about the image and may still surprise."""
    if job.image is None:
        return []
    image, notes = job.image, []
    if job.runtime == "none":
        return ["image is built by build-image alone: with runtime: none the job does not use it"]
    if image.file is None and bases.known_base(image.base) is None:
        notes.append(
            f"image.base: what {image.base} brings is not known here; the build tells its Python "
            "and torch, and whether everything goes with them"
        )
    if image.file is None and not re.search(r":[^/]+$", image.base):
        notes.append("image.base has no tag, so it is :latest, which moves; name a tag or a digest")
    if job.runtime == "docker" and job.cluster != LOCAL:
        notes.append("image.runtime: docker needs the right to use docker on every node")
    unseen = [m for m in image.mounts if not os.path.exists(mount_of(m)[0])]
    if unseen and job.cluster != LOCAL:
        notes.append(f"image.mounts: not here, so not verified: {', '.join(unseen)}")
    return notes


def mount_of(mount: str) -> tuple[str, str]:
    """Folder outside and place inside of `/data`, `/data:/inside` or `/data:/inside:ro`."""
    source, _, rest = mount.partition(":")
    target = rest.partition(":")[0] or source
    # normpath keeps two leading slashes
    return source, "/" + os.path.normpath(target).lstrip("/")


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _wishes(image: Image) -> Iterator[_Wish]:
    """What is asked for in `pip` and in the file; of the file, the lines that are accepted."""
    for number, text in enumerate(image.pip):
        yield _Wish(f"image.pip[{number}]", "", text)
    try:
        lines = _read_lines(image.requirements) if image.requirements else []
    except (OSError, ValueError):
        return
    for number, line in lines:
        if requirements.reason_to_refuse(line, image.build_secrets) is None:
            yield _Wish("image.requirements", f"line {number}: ", line)


def _read_lines(path: str) -> list[tuple[int, str]]:
    if os.path.getsize(path) > LARGEST_REQUIREMENTS:
        raise ValueError("larger than 1 MiB; this is no requirements.txt")
    return list(requirements.lines_of(Path(path).read_text("utf-8")))
