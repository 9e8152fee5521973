"""build-image, images ls|rm|gc: the containers that jobs run in."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from clusterlm.cli.typed import AsJson, JobFile, Overrides, load, tell

if TYPE_CHECKING:
    from clusterlm.cluster.images.record import ImageRecord
    from clusterlm.cluster.images.store import Stored
    from clusterlm.spec.job import Job

HEAD = ("RECIPE", "BASE", "TORCH", "SIZE", "AGE", "FILE", "RUNS")
USERS_SHOWN = 3

images = typer.Typer(
    help="The images that were built here.", no_args_is_help=True, rich_markup_mode=None
)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("build-image")(build_image)
    app.add_typer(images, name="images")


def build_image(
    job: JobFile,
    overrides: Overrides = None,
    pull: Annotated[
        bool, typer.Option("--pull", help="Ask the registry for a newer base, and build on it.")
    ] = False,
    no_import: Annotated[
        bool, typer.Option("--no-import", help="Leave it in docker or podman.")
    ] = False,
    render_only: Annotated[
        bool, typer.Option("--render-only", help="Write Dockerfile and scripts, build nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build the image of a job, check it, and make the file that nodes start.

    Says so in about a second when it is there already.
    """
    from clusterlm.cluster.images.build import write_image_files

    loaded = load(job, overrides, None).job
    if render_only:
        for path in write_image_files(loaded):
            typer.echo(str(path))
        return
    began = time.time()
    record, left = _build(loaded, pull, no_import)
    _print_built(loaded, record, left, as_json)
    if record and record.built < began and not as_json:
        typer.echo("nothing to build: it is there, and nothing that it is made of has changed")


@images.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the images, the newest first."""
    from clusterlm.cluster.images.store import stored_images

    found = stored_images()
    if as_json:
        import json

        typer.echo(json.dumps([image.to_json() for image in found]))
        return
    if not found:
        from clusterlm.image_paths import images_dir

        typer.echo(f"no images in {images_dir()}")
        return
    rows = [HEAD, *(_row(image) for image in found)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
    for row in rows:
        typer.echo("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip())


@images.command("rm")
def rm(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="Or its beginning.")],
    force: Annotated[bool, typer.Option("--force", help="Also what unfinished runs use.")] = False,
) -> None:
    """Remove images: file, record, and the name in docker or podman."""
    from clusterlm.cluster.host import LocalHost
    from clusterlm.cluster.images.store import choose, refuse_used, remove, stored_images

    chosen = choose(stored_images(), recipes)
    if not force:
        refuse_used(chosen)
    for image in chosen:
        freed = remove(image, LocalHost(), tell)
        typer.echo(f"removed {image.paths.short}{_freed(freed)}")


@images.command("gc")
def gc(
    keep: Annotated[int, typer.Option("--keep", min=0, help="So many of the newest stay.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
) -> None:
    """Remove what is not needed: old images, and what failed builds and imports have left.

    The newest stay, and every image that a run uses which has not ended.
    """
    from clusterlm.cluster.host import LocalHost
    from clusterlm.cluster.images import store

    found = store.stored_images()
    going = store.superfluous(found, keep)
    verb = "would remove" if dry_run else "removed"
    for path in store.remains():
        freed = 0 if dry_run else store.remove_remains(path)
        typer.echo(f"{verb} {path}{_freed(freed)}")
    for image in going:
        freed = 0 if dry_run else store.remove(image, LocalHost(), tell)
        typer.echo(f"{verb} {image.paths.short}{_freed(freed)}")
    typer.echo(f"{len(found) - len(going)} of {len(found)} images stay")


def _build(job: Job, pull: bool, no_import: bool) -> tuple[ImageRecord | None, str]:
    """(what was built, why it was not imported)."""
    from clusterlm.cluster.host import LocalHost
    from clusterlm.cluster.images.build import ensure_image
    from clusterlm.errors import ImageNotImported

    if no_import:
        return ensure_image(job, LocalHost(), tell=tell, pull=pull, runtime="docker"), ""
    try:
        return ensure_image(job, LocalHost(), tell=tell, pull=pull), ""
    except ImageNotImported as error:
        # everything that this machine can do is done
        record = ensure_image(job, LocalHost(), tell=tell, runtime="docker")
        return record, str(error)


def _print_built(job: Job, record: ImageRecord | None, left: str, as_json: bool) -> None:
    from clusterlm.image_paths import images_dir

    if as_json:
        import json
        from dataclasses import asdict

        file = str(images_dir() / record.file) if record and record.file else None
        known = {**asdict(record), "file": file} if record else {}
        typer.echo(json.dumps({**known, "not_imported": left or None}))
        return
    if record is None and job.image and job.image.file:
        typer.echo(f"image.file: {job.image.file} is there; nothing to build")
        return
    if record is None:
        typer.echo("nothing to build: the job runs in the current Python, without `image`")
        return
    cuda = f"CUDA {record.cuda}, " if record.cuda else ""
    torch = f"torch {record.torch}, {cuda}Python {record.python_version}"
    typer.echo(f"image {record.tag}: {torch}, clusterlm {record.clusterlm}")
    if record.pushed:
        typer.echo(f"  pushed    {record.pushed}")
    if record.file:
        typer.echo(f"  file      {images_dir() / record.file}")
    if left:
        typer.echo(f"not imported: {left}")
    sys.stdout.flush()


def _row(image: Stored) -> tuple[str, ...]:
    from clusterlm.cluster.images.space import gigabytes

    record = image.record
    runs = [f"{run}*" if run in image.unfinished else run for run in image.runs]
    more = [f"and {len(runs) - USERS_SHOWN} more"] if len(runs) > USERS_SHOWN else []
    return (
        image.paths.short,
        record.base,
        record.torch or "-",
        gigabytes(record.file_bytes if image.has_file and record.file_bytes else record.size_bytes),
        _age(time.time() - record.built),
        record.file if image.has_file and record.file else f"({record.builder})",
        ", ".join([*runs[:USERS_SHOWN], *more]) or "-",
    )


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"


def _freed(size: int) -> str:
    from clusterlm.cluster.images.space import gigabytes

    return f" ({gigabytes(size)})" if size else ""
