"""The image of a job: there already, or built, pushed and imported. One at a time for one recipe.

An image is known by its recipe (`recipe.py`). Nothing is done when the imported file is whole, or
when the local daemon has an image whose label is the recipe; that takes a second, and for a file it
asks no daemon. The record is written last: without it nothing was built.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from clusterlm.cluster.host import Host
from clusterlm.cluster.images.engine import Engine, LocalImage, engine_named, find_engine
from clusterlm.cluster.images.execute import build_image
from clusterlm.cluster.images.importing import (
    FILE_RUNTIMES,
    given_file,
    import_image,
    import_of,
    imported,
    write_script,
)
from clusterlm.cluster.images.progress import Screen
from clusterlm.cluster.images.pull import pull_base, push_image
from clusterlm.cluster.images.recipe import Recipe, recipe_of, write_context
from clusterlm.cluster.images.record import (
    ImageRecord,
    read_record,
    record_from,
    seal_path,
    write_record,
)
from clusterlm.cluster.images.space import refuse_short_disk
from clusterlm.cluster.interrupts import ends_like_ctrl_c
from clusterlm.container import runtime_of
from clusterlm.errors import ImageError
from clusterlm.image_paths import ImagePaths, images_dir
from clusterlm.node.image_build import RECORD
from clusterlm.paths import PRIVATE_DIR
from clusterlm.spec.image import Image, Runtime
from clusterlm.spec.job import Job

LABEL = "clusterlm.recipe"
Tell = Callable[[str], None]


def ensure_image(
    job: Job,
    host: Host,
    *,
    tell: Tell,
    may_build: bool = True,
    pull: bool = False,
    runtime: Runtime | None = None,
) -> ImageRecord | None:
    """Build and import what `job.image` asks for unless it is there.

    Args:
        job: the resolved spec.
        host: where docker, enroot and Slurm are.
        tell: gets lines for the user.
        may_build: build or import what is missing; else its absence is an error.
        pull: ask the registry for the base again, and rebuild when it has another one.
        runtime: in place of the job's; "docker" imports nothing.

    Returns:
        What is known of the image; None when there is none, or it was made elsewhere.

    Raises:
        ImageError: the image cannot be built or imported, or is missing and may not be built.
    """
    runtime = runtime or runtime_of(job)
    if job.image is None or runtime == "none":
        return None
    if job.image.file:
        return given_file(Path(job.image.file))
    recipe = recipe_of(job.image)
    found = None if pull else _there(job.image, recipe, runtime, host, tell)
    if found:
        return found
    if not may_build:
        raise ImageError(
            f"the image of this job is not there yet ({recipe.paths.short})\n"
            "  make it first:  clusterlm build-image JOB"
        )
    with ends_like_ctrl_c():
        record = _built(job.image, recipe, host, tell, pull)
        if runtime in FILE_RUNTIMES:
            record = import_image(job, recipe.paths, record, runtime, host, tell)
    return record


def find_image(job: Job) -> ImagePaths | None:
    """Where the image of a job lies or will lie, by its recipe; asks no daemon."""
    if job.image is None or job.image.file or runtime_of(job) == "none":
        return None
    return recipe_of(job.image).paths


def write_image_files(job: Job) -> list[Path]:
    """Write what would be built from and the import script, and build nothing.

    Raises:
        ImageError: there is nothing to build.
    """
    runtime = runtime_of(job)
    if job.image is None or job.image.file or runtime == "none":
        raise ImageError("the job asks for no image that is built: see `image` in docs/images.md")
    recipe = recipe_of(job.image)
    written = [write_context(recipe) / "Dockerfile"]
    if runtime in FILE_RUNTIMES:
        written.append(write_script(import_of(job.image, recipe.paths, None, runtime)))
    return written


def _there(
    image: Image, recipe: Recipe, runtime: Runtime, host: Host, tell: Tell
) -> ImageRecord | None:
    """The image when nothing is to be done."""
    record = read_record(recipe.paths)
    if record is None or not _is_pushed(image, record):
        return None
    if runtime in FILE_RUNTIMES:
        return imported(recipe.paths, record, runtime)
    engine = engine_named(host, image.builder or record.builder)
    here = _labelled(engine, recipe)
    if here is None:
        return None
    if here.image_id != record.image_id:
        tell(f"note: {recipe.paths.tag} is not the image that was built: it is built anew")
        return None
    _tell_of_another_base(engine, record, tell)
    return record


def _tell_of_another_base(engine: Engine, record: ImageRecord, tell: Tell) -> None:
    base = engine.image(record.base)
    if base and record.base_digest and record.base_digest not in (base.digest, base.image_id):
        tell(
            f"note: {record.base} is another image now than the one that this was built on;"
            " build on it:  clusterlm build-image JOB --pull"
        )


def _built(image: Image, recipe: Recipe, host: Host, tell: Tell, pull: bool) -> ImageRecord:
    """The image in the local engine, its record written, pushed where that is asked for."""
    paths = recipe.paths
    images_dir().mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
    with locked(paths, tell):
        engine, notes = find_engine(host, image.builder)
        for note in notes:
            tell(f"note: {note}")
        record, here = read_record(paths), _labelled(engine, recipe)
        if record and here and here.image_id != record.image_id and engine.kind == record.builder:
            # somebody has changed it under its name
            here = None
        base = engine.image(recipe.base)
        if pull or (base is None and here is None):
            if base is None:
                refuse_short_disk(engine, recipe, None)
            base = pull_base(engine, recipe.base, Screen(tell, sys.stderr))
        is_old = pull and record and base and record.base_digest != base.digest
        if here is None or is_old:
            assert base is not None
            here = build_image(image, engine, recipe, base, tell)
        if record is None or record.image_id != here.image_id:
            record = _record(engine, recipe, base, here)
            # an import of the image before does not belong to this one
            for file in (paths.squashfs, paths.sif):
                seal_path(file).unlink(missing_ok=True)
            write_record(paths, record)
        if image.registry and not _is_pushed(image, record):
            pushed = push_image(engine, paths, image.registry, Screen(tell, sys.stderr))
            record = replace(record, pushed=pushed)
            write_record(paths, record)
    return record


def _is_pushed(image: Image, record: ImageRecord) -> bool:
    """Whether it is where it is wanted; so also when no registry is."""
    return not image.registry or (record.pushed or "").startswith(f"{image.registry}@")


def _labelled(engine: Engine, recipe: Recipe) -> LocalImage | None:
    """The image of this very recipe, when the engine has it."""
    here = engine.image(recipe.paths.tag)
    return here if here and here.labels.get(LABEL) == recipe.digest else None


def _record(
    engine: Engine, recipe: Recipe, base: LocalImage | None, here: LocalImage
) -> ImageRecord:
    """What image.json inside says, and what the engine says of the image."""
    inside = _image_json(engine, recipe.paths.tag)
    known = {
        **{k: inside.get(k) for k in ("torch", "cuda", "nccl")},
        **{k: inside[k] for k in ("python", "python_version", "clusterlm", "code_digest")},
        **{k: inside[k] for k in ("arch", "built")},
        "recipe": recipe.digest,
        "base": recipe.base,
        "base_digest": base.digest if base else "",
        "image_id": here.image_id,
        "builder": engine.kind,
        "tag": recipe.paths.tag,
        "size_bytes": here.size_bytes,
    }
    record = record_from(known)
    assert record is not None
    return record


def _image_json(engine: Engine, tag: str) -> dict[str, Any]:
    text = engine.read_file(tag, str(RECORD))
    try:
        found = json.loads(text)
        return dict(found)
    except (ValueError, TypeError) as error:
        raise ImageError(
            f"{RECORD} in {tag} is no JSON object; remove it: {engine.program} rmi {tag}"
        ) from error


@contextmanager
def locked(paths: ImagePaths, tell: Tell) -> Iterator[None]:
    """Hold the lock of a recipe; who comes second waits here and finds the image."""
    while True:
        with paths.lock.open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell("another build or import of this image is under way: waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
            # `images rm` may have taken the file away while we waited: then this locks nothing
            if paths.lock.exists() and os.path.samestat(
                os.fstat(handle.fileno()), paths.lock.stat()
            ):
                yield
                return
