"""Is there room for a build where docker keeps its images? Asked before, since it takes minutes."""

from __future__ import annotations

import os
from pathlib import Path

from clusterlm.cluster.images.engine import Engine, LocalImage
from clusterlm.cluster.images.recipe import Recipe
from clusterlm.cluster.images.trouble import free_space
from clusterlm.errors import ImageError

BASE_BYTES = 21_000_000_000
"""An NGC PyTorch image as it lies unpacked (24.08: 20.6 GB)."""
COMPRESSED = 0.5
"""Of it, while it is pulled: the layers come compressed and are there until they are unpacked."""
ADDED_BYTES = 1_500_000_000
"""The training stack without torch, and what a build writes on the way."""
WHEELS = 3
"""Wheels lie in the context, are sent to the daemon, and are unpacked."""


def bytes_needed(recipe: Recipe, base: LocalImage | None) -> int:
    """What a build may write."""
    wheels = sum(path.stat().st_size for path in recipe.linked.values())
    pulled = 0 if base else int(BASE_BYTES * (1 + COMPRESSED))
    # on a small base (CI) little is added
    added = min(ADDED_BYTES, base.size_bytes) if base else ADDED_BYTES
    return pulled + added + WHEELS * wheels


def refuse_short_disk(engine: Engine, recipe: Recipe, base: LocalImage | None) -> None:
    """Raise when the builder's disk cannot hold the image.

    Raises:
        ImageError: with the folder, what is needed and what is there.
    """
    root = engine.root()
    if root is None:
        return
    needed, free = bytes_needed(recipe, base), free_bytes(root)
    if free >= needed:
        return
    what = "the base and what is added to it" if base is None else "what is added to the base"
    raise ImageError(
        f"too little room for the image in {root}, where {engine.kind} keeps images:"
        f" {gigabytes(needed)} needed for {what}, {gigabytes(free)} free\n"
        f"  {free_space(engine.kind)}"
    )


def free_bytes(folder: Path) -> int:
    """What this user may still write there, quotas aside."""
    seen = os.statvfs(folder)
    return seen.f_bavail * seen.f_frsize


def gigabytes(size: float) -> str:
    """`20.6 GB`, `310 MB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
