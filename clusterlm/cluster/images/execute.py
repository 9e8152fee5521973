"""One `docker build` (podman, buildah): what is shown and logged of it, and why it failed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from clusterlm.cluster.images.engine import Engine, LocalImage
from clusterlm.cluster.images.progress import BuildReader, Screen, duration
from clusterlm.cluster.images.recipe import Recipe, write_context
from clusterlm.cluster.images.secrets import build_secrets, hider, secret_files
from clusterlm.cluster.images.space import gigabytes, refuse_short_disk
from clusterlm.cluster.images.trouble import free_space, is_disk_full
from clusterlm.errors import ImageError, TorchReplaced
from clusterlm.image_paths import ImagePaths, images_dir
from clusterlm.node.image_build import EXIT_REPLACED
from clusterlm.spec.image import Image


def build_image(
    image: Image, engine: Engine, recipe: Recipe, base: LocalImage, tell: Callable[[str], None]
) -> LocalImage:
    """Build; the base is here.

    Raises:
        TorchReplaced: a package would put its own torch in place of the base's.
        ImageError: the disk is too small, or a step failed.
    """
    refuse_short_disk(engine, recipe, base)
    values = build_secrets(image.build_secrets)
    context, log, tag = write_context(recipe), log_path(recipe.paths), recipe.paths.tag
    tell(f"building {tag} on {recipe.base} with {engine.kind}; output: {log}")
    began, reader = time.monotonic(), BuildReader()
    with secret_files(values) as files:
        argv = engine.build_argv(context, tag, files)
        code = _watched(engine, argv, reader, log, hider(values.values()), tell)
    if code:
        raise _failure(engine, reader, code, log)
    built = engine.image(tag)
    if built is None:
        raise ImageError(f"{engine.kind} built without an error, but has no {tag}")
    took = duration(time.monotonic() - began)
    tell(f"built {tag} in {took}: {gigabytes(built.size_bytes)}")
    return built


def log_path(paths: ImagePaths) -> Path:
    """The whole output of the newest build."""
    return images_dir() / f"{paths.short}.log"


def _watched(
    engine: Engine,
    argv: list[str],
    reader: BuildReader,
    log: Path,
    hide: Callable[[str], str],
    tell: Callable[[str], None],
) -> int:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as output, Screen(tell, sys.stderr) as screen:

        def each(line: str) -> None:
            hidden = hide(line)
            output.write(hidden + "\n")
            output.flush()
            step, printed = reader.read(hidden)
            if step:
                screen.step(step)
            elif printed:
                screen.detail(printed)

        return engine.host.stream(argv, each)


def _failure(engine: Engine, reader: BuildReader, code: int, log: Path) -> ImageError:
    """Why a build failed: what a step inside said, or the end of its output."""
    where = f"  the whole output: {log}"
    if reader.refusal:
        is_torch = EXIT_REPLACED in (code, reader.exit_code)
        kind = TorchReplaced if is_torch else ImageError
        first, *more = reader.refusal
        return kind("\n".join([f"the image was not built: {first}", *more, where]))
    last = reader.errors[-1] if reader.errors else f"exit {code}"
    full = [text for text in [*reader.tail, *reader.errors] if is_disk_full(text)]
    if full:
        return ImageError(
            f"the disk is full: {engine.kind} could not build the image\n"
            f"  {full[-1]}\n  {free_space(engine.kind)}\n{where}"
        )
    lines = [f"the image was not built: step {reader.step or '(none)'} failed", f"  {last}"]
    lines += [f"  | {text}" for text in reader.tail]
    return ImageError("\n".join([*lines, where]))
