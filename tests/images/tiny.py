"""A recipe that builds in a second, for what is done with an image and not what is in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from clusterlm.cluster.images import build
from clusterlm.cluster.images.recipe import Recipe
from clusterlm.spec.image import Image
from clusterlm.spec.job import Job

INSIDE = {
    "clusterlm": "0.1.0",
    "code_digest": "c" * 64,
    "python": "/usr/bin/python3",
    "python_version": "3.11.2",
    "torch": "2.5.0a0",
    "cuda": "12.6",
    "nccl": None,
    "guarded": {},
    "arch": "x86_64",
    "built": 1_800_000_000.0,
}


def tiny_recipe(image: Image, run: str = "true") -> Recipe:
    """One RUN, each secret shown as a careless program would, and image.json."""
    text = f"FROM {image.base}\nRUN {run}\n"
    for name in image.build_secrets:
        file = f"/run/secrets/{name}"
        text += f"RUN --mount=type=secret,id={name} cat {file}; echo; base64 -w 0 {file}\n"
    text += 'COPY image.json /opt/clusterlm/\nCMD ["/bin/bash"]\n'
    digest = hashlib.sha256(text.encode()).hexdigest()
    files = {
        "Dockerfile": f"{text}LABEL clusterlm.recipe={digest}\n".encode(),
        "image.json": json.dumps({**INSIDE, "recipe": digest}).encode(),
    }
    return Recipe(digest, files, {}, "c" * 64, image.base)


def use_tiny(monkeypatch: pytest.MonkeyPatch, run: str = "true") -> None:
    """Let jobs build the tiny recipe."""
    monkeypatch.setattr(build, "recipe_of", lambda image: tiny_recipe(image, run))


def job_on(base: str, **asked: Any) -> Job:
    """A job with an `image` section; `cluster` may be given too."""
    cluster = asked.pop("cluster", "local")
    resources = asked.pop("resources", {})
    return Job.model_validate(
        {
            "name": "tiny",
            "cluster": cluster,
            "resources": resources,
            "image": {"base": base, **asked},
            "train": {"command": ["train.py"]},
        }
    )


def collect() -> tuple[list[str], Callable[[str], None]]:
    """(lines, the function that takes them)."""
    lines: list[str] = []
    return lines, lines.append
