"""Where torch compiles its extensions: a private folder on the node itself, without stale locks.

torch guards a build by a file named `lock` and waits for it without limit and without a word. A
rank that was killed while it compiled leaves the file behind, and the next training hangs before
its first step. Who builds holds the file open, and on one node that can be seen: in our own folder
a lock that nobody holds goes away, in a folder that the job's `env` names it is told, for the
holder may be on another node.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

EXTENSIONS = "TORCH_EXTENSIONS_DIR"
STALE_S = 900.0
"""Builds take minutes at most; an older lock has no owner."""
YOUNG_S = 5.0
"""So young a lock may be of a process that was not there yet when we looked for its holder."""
WAITS = "waits for the lock of a build"
"""How a rank begins what it says while it hangs on such a lock; `why` knows it by that."""


def prepare_extensions(
    root: Path | None = None, *, now: float | None = None, proc: Path = Path("/proc")
) -> Path:
    """Make the folder and take stale locks out of it."""
    folder = root or own_folder()
    # a node that cannot make it is told by torch, if anything is compiled at all
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for lock, age_s in ownerless_locks(folder, now=now, proc=proc):
            print(
                f"{lock} is of a build that ended {age_s:.0f} s ago or later: removed", flush=True
            )
            lock.unlink(missing_ok=True)
    return folder


def own_folder() -> Path:
    """Of this user, on this node."""
    return Path(tempfile.gettempdir()) / f"clusterlm-{os.getuid()}" / "torch_extensions"


def ownerless_locks(
    folder: Path, *, now: float | None = None, proc: Path = Path("/proc")
) -> Iterator[tuple[Path, float]]:
    """Locks that no process of this node holds open, and their age in seconds."""
    now = time.time() if now is None else now
    for lock in folder.glob("*/**/lock"):
        try:
            age_s = now - lock.stat().st_mtime
        except OSError:
            continue
        if age_s > STALE_S or (age_s > YOUNG_S and _is_held(lock, proc) is False):
            yield lock, age_s


def _is_held(lock: Path, proc: Path) -> bool | None:
    """Whether a process has the file open; None where processes cannot be seen."""
    wanted, seen = str(lock.resolve()), False
    for fd in proc.glob("[0-9]*/fd/*"):
        # of other users, or just gone
        with contextlib.suppress(OSError):
            seen = True
            if os.readlink(fd) == wanted:
                return True
    return False if seen else None
