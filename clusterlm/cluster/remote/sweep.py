"""Takes away what `clutter.py` found: renamed aside under the lock, then removed.

    FOLDER/.removed/<uuid>      on its way out; nothing looks there

What is in use since it was found stays: right before it is renamed it is looked at again, while no
submit can ask for it. A kill leaves whole things, and things in `.removed`, which go the next time.
"""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clusterlm.cluster.remote.asked import asked_since, undisturbed
from clusterlm.cluster.remote.clutter import REMOVED, Clutter, Item
from clusterlm.errors import ClusterLMError
from clusterlm.paths import PRIVATE_DIR

AT_ONCE = 200
"""Things that are renamed under one lock: a submit waits no longer than for these."""
ORDER = ("leftovers", "software", "submits", "snapshots", "uploads", "objects")
"""Uploads before objects: a content goes when its last other name has gone."""


@dataclass
class Swept:
    """What came of it.

    Attributes:
        items: that are gone.
        left: why others are not.
    """

    items: list[Item] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def sweep(folder: Path, clutter: Clutter, *, asked_after: float) -> Swept:
    """Remove it.

    Args:
        folder: of the profile, without links.
        clutter: what was found there.
        asked_after: contents that were asked for since then stay.

    Raises:
        ClusterLMError: `.removed` is a link or no folder.
    """
    out = _place(folder)
    swept = Swept()
    for kind in ORDER:
        items = clutter.of(kind)
        for first in range(0, len(items), AT_ONCE):
            batch = items[first : first + AT_ONCE]
            with undisturbed(folder):
                # once for all of them: nobody asks meanwhile
                asked = asked_since(folder, asked_after) if kind == "objects" else ()
                aside = [_put_aside(item, out, asked, swept) for item in batch]
            for item, paths in zip(batch, aside, strict=True):
                _remove(item, paths, swept)
    return swept


def _place(folder: Path) -> Path:
    out = folder / REMOVED
    out.mkdir(exist_ok=True, mode=PRIVATE_DIR)
    if not stat.S_ISDIR(os.lstat(out).st_mode):
        raise ClusterLMError(f"{out} is no folder of ours: look what it is, and move it away")
    return out


def _put_aside(item: Item, out: Path, asked: Collection[str], swept: Swept) -> list[Path]:
    """Where it lies now; nothing when it is wanted after all."""
    if item.path.parent == out:
        return [item.path]
    is_wanted = item.kind == "objects" and (item.path.name in asked or _links(item.path) != 1)
    if is_wanted or not item.is_old():
        return []
    moved = []
    try:
        # the name first: a link that leads nowhere is no installation
        for path in (item.path, item.also):
            if path is not None:
                aside = out / uuid.uuid4().hex
                os.rename(path, aside)
                moved.append(aside)
    except FileNotFoundError:
        # another cleaning was first
        pass
    except OSError as error:
        swept.left.append(f"{item.path}: {error.strerror}")
    return moved


def _links(path: Path) -> int:
    try:
        return os.lstat(path).st_nlink
    except OSError:
        return 0


def _remove(item: Item, paths: Sequence[Path], swept: Swept) -> None:
    for path in paths:
        # of two cleanings at once each finds what the other has removed already
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        if os.path.lexists(path):
            swept.left.append(f"{path} cannot be removed whole; look at its permissions")
            return
    if paths:
        swept.items.append(item)
