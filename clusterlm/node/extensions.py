"""Where torch compiles its extensions: a private folder on the node itself, without stale locks.

torch guards a build by a file named `lock` and waits for it without limit. A rank that was killed
while it compiled leaves the file behind, and the next training hangs before its first step.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path

EXTENSIONS = "TORCH_EXTENSIONS_DIR"
STALE_S = 900.0
"""Builds take minutes at most; an older lock has no owner."""


def prepare_extensions(root: Path | None = None, *, now: float | None = None) -> Path:
    """Make the folder and take stale locks out of it."""
    folder = root or Path(tempfile.gettempdir()) / f"clusterlm-{os.getuid()}" / "torch_extensions"
    now = time.time() if now is None else now
    # a node that cannot make it is told by torch, if anything is compiled at all
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for lock in folder.glob("*/**/lock"):
            if now - lock.stat().st_mtime > STALE_S:
                lock.unlink()
    return folder
