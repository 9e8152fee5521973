"""Folders from this side: a mark in each, by which a node tells that it is the same one.

Only folders of clusterlm, and those that the user names, are written to; of others (mounts, where
Python lies) inode and time are compared.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clusterlm.node.files import write_atomically
from clusterlm.node.look_around import time_saves
from clusterlm.paths import PRIVATE_DIR

MARK = ".clusterlm-doctor"


@contextlib.contextmanager
def marked(own: Sequence[Path], others: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The folders of a request to `node/look_around.py`; the marks are gone afterwards."""
    name, token = f"{MARK}-{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    folders = []
    try:
        for path in own:
            folders.append(_marked(path, name, token))
        folders += [_described(path) for path in others if path not in own]
        yield {"name": name, "folders": [folder for folder in folders if folder]}
    finally:
        for path in own:
            with contextlib.suppress(OSError):
                (path / name).unlink(missing_ok=True)


def clock_ahead_s(folder: Path) -> float | None:
    """This machine's clock against the one that stamps files there."""
    seen = time_saves(str(folder), f"{MARK}-{uuid.uuid4().hex[:12]}")
    return float(seen["ahead_s"]) if "ahead_s" in seen else None


def _marked(path: Path, name: str, token: str) -> dict[str, Any] | None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
        write_atomically(path / name, token)
    except OSError:
        return _described(path)
    return {"path": str(path), "token": token, "identity": None, "writes": True}


def _described(path: Path) -> dict[str, Any] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    identity = [found.st_ino, found.st_mtime_ns]
    return {"path": str(path), "token": None, "identity": identity, "writes": False}
