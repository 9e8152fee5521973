"""Build a recipe on the test bed's Docker, as somebody would by hand in its folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clusterlm.cluster.images.recipe import Recipe, recipe_of, write_context
from clusterlm.spec.image import Image
from tests.bed.docker import DockerBed

Done = subprocess.CompletedProcess[str]


def recipe_for(base: str, wheelhouse: Path | None, **asked: Any) -> Recipe:
    """The recipe of an `image` section; `env` may hold what the grammar would refuse."""
    env = asked.pop("env", {})
    # the same secret in all of them, so that they share the layer of the training stack
    secrets = {"build_secrets": ["TOKEN"]}
    section = {"base": base, "wheelhouse": wheelhouse and str(wheelhouse), **secrets, **asked}
    return recipe_of(Image.model_validate(section).model_copy(update={"env": env}))


def build(docker: DockerBed, recipe: Recipe, secrets: Mapping[str, str] | None = None) -> Done:
    """`docker build`; the output is in stdout."""
    given = dict(secrets or {})
    argv = [docker.client, "build", "--network", "host", "--progress", "plain"]
    for name in given:
        argv += ["--secret", f"id={name}"]
    return subprocess.run(
        [*argv, "--tag", recipe.paths.tag, write_context(recipe)],
        env={**os.environ, **docker.env, **given},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def built(docker: DockerBed, recipe: Recipe, secrets: Mapping[str, str] | None = None) -> Done:
    """The same, and it must succeed."""
    done = build(docker, recipe, secrets)
    assert done.returncode == 0, done.stdout[-4000:]
    return done


def in_image(docker: DockerBed, recipe: Recipe, *words: str) -> str:
    """What a program in the image prints."""
    return docker.run("run", "--rm", "--network", "host", recipe.paths.tag, *words).stdout
