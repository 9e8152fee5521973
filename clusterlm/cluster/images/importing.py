"""An image as one file that every node can start: .sqsh by enroot, .sif by apptainer.

The work is done by a rendered script, the same here, in a job on one node, and by hand: it holds
the lock, checks the room, writes to another name, renames, and writes the seal last
(`templates/_import.sh.j2`). Here it is decided where the image comes from and who runs the script.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from clusterlm.cluster.host import Host
from clusterlm.cluster.images.import_job import import_by_slurm
from clusterlm.cluster.images.progress import Screen, duration
from clusterlm.cluster.images.record import (
    ImageRecord,
    read_seal,
    record_from,
    write_record,
)
from clusterlm.cluster.images.space import BASE_BYTES, gigabytes
from clusterlm.cluster.images.trouble import SAID, import_trouble, registry_host
from clusterlm.errors import ImageError, ImageNotImported
from clusterlm.image_paths import ImagePaths
from clusterlm.node.files import read_json, write_atomically
from clusterlm.paths import PRIVATE_DIR
from clusterlm.render import Import, render_import
from clusterlm.spec.image import Image, Runtime
from clusterlm.spec.job import Job

FILE_RUNTIMES: tuple[Runtime, ...] = ("pyxis", "enroot", "apptainer")
"""Those that start one file, and not an image of a daemon."""
_KEPT = 15


def import_image(
    job: Job,
    paths: ImagePaths,
    record: ImageRecord,
    runtime: Runtime,
    host: Host,
    tell: Callable[[str], None],
) -> ImageRecord:
    """Make the file of an image that was built.

    Raises:
        ImageNotImported: the program is not on this machine; the script to run elsewhere is ready.
        ImageError: the import failed.
    """
    assert job.image is not None
    if found := imported(paths, record, runtime):
        return found
    asked = import_of(job.image, paths, record, runtime)
    script = write_script(asked)
    began = time.monotonic()
    if job.image.import_on == "slurm":
        import_by_slurm(job, asked, script, host, Screen(tell, sys.stderr))
    elif host.has(asked.program):
        _import_here(asked, script, host, tell)
    else:
        raise ImageNotImported(
            f"there is no {asked.program} here to make {asked.file.name} of {record.tag}\n"
            f"  run this where {asked.program} is, with the same folder in sight:\n"
            f"  bash {script}"
        )
    done = imported(paths, record, runtime)
    if done is None:
        raise ImageError(f"the import ended well, but {asked.file} is not whole")
    took = duration(time.monotonic() - began)
    tell(f"imported {asked.file} in {took}: {gigabytes(done.file_bytes or 0)}")
    return done


def imported(paths: ImagePaths, record: ImageRecord, runtime: Runtime) -> ImageRecord | None:
    """The record with its whole file, also when the script was run by hand; None without one."""
    file = paths.sif if runtime == "apptainer" else paths.squashfs
    seal = read_seal(file)
    if seal is None:
        return None
    found = replace(record, file=file.name, file_bytes=seal.bytes, file_sha256=seal.sha256)
    if found != record:
        write_record(paths, found)
    return found


def given_file(file: Path) -> ImageRecord | None:
    """What is known of the file that `image.file` names.

    Raises:
        ImageError: it is not there, or no squashfs and no SIF.
    """
    try:
        with file.open("rb") as handle:
            head = handle.read(64)
    except OSError as error:
        raise ImageError(f"image.file: {file} cannot be read: {error.strerror}") from error
    if not (head.startswith(b"hsqs") or head[32:41] == b"SIF_MAGIC"):
        raise ImageError(
            f"image.file: {file} is neither a squashfs (.sqsh) nor an apptainer image (.sif)"
        )
    # made by build-image, its record copied along
    found = read_json(file.with_suffix(".json"))
    return record_from(found) if found else None


def import_of(
    image: Image, paths: ImagePaths, record: ImageRecord | None, runtime: Runtime
) -> Import:
    """What the script is to do.

    Args:
        image: what is asked for.
        paths: where the file comes to lie.
        record: of the build; None when it has not been built, to render only.
        runtime: pyxis, enroot or apptainer.

    Raises:
        ImageError: nothing can take the image out of the builder's store.
    """
    builder = record.builder if record else image.builder or "docker"
    needs = record.size_bytes if record else BASE_BYTES
    for_apptainer = runtime == "apptainer"
    program: Literal["enroot", "apptainer"] = "apptainer" if for_apptainer else "enroot"
    if image.registry:
        tagged = f"{image.registry}:{paths.short}"
        source = f"docker://{tagged}" if for_apptainer else enroot_uri(image.registry, paths.short)
        return Import(program, paths, source, needs)
    if for_apptainer:
        archive = {
            "podman": ("podman", "save", "--format", "docker-archive", "--output"),
            "buildah": ("buildah", "push"),
        }.get(builder, ())
        return Import(program, paths, f"docker-daemon:{paths.tag}", needs, None, archive)
    if builder == "buildah":
        raise ImageError(
            "enroot takes images from docker, podman or a registry, and this one was built by"
            " buildah\n  set `image.registry`, or install podman, which sees buildah's images:"
            "  --set image.builder=podman"
        )
    scheme = "podman" if builder == "podman" else "dockerd"
    container_program = "podman" if builder == "podman" else "docker"
    return Import(program, paths, f"{scheme}://{paths.tag}", needs, container_program)


def enroot_uri(repository: str, tag: str) -> str:
    """Name the registry before a `#`, as enroot wants it; before a `/` it would be Docker Hub's.

    registry.example:5000/team/x, 1 -> docker://registry.example:5000#team/x:1
    """
    host = registry_host(repository)
    image = repository.removeprefix(f"{host}/")
    # the name that people write is not that of the machine
    where = "" if host == "docker.io" else f"{host}#"
    return f"docker://{where}{image}:{tag}"


def write_script(asked: Import) -> Path:
    """The script beside what the image was built from, ready to be run by hand."""
    folder = asked.image.context
    folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
    script = folder / asked.script_name
    write_atomically(script, render_import(asked), mode=0o700)
    return script


def _import_here(asked: Import, script: Path, host: Host, tell: Callable[[str], None]) -> None:
    kept: deque[str] = deque(maxlen=_KEPT)
    with Screen(tell, sys.stderr) as screen:
        screen.step(f"{asked.program} import of {asked.source}")

        def each(line: str) -> None:
            if line.strip():
                kept.append(line)
                screen.detail(line.removeprefix(SAID))

        code = host.stream(["bash", str(script)], each)
    if code:
        raise ImageError(import_trouble(asked, list(kept)))
