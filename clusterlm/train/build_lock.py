"""Says when this rank hangs on the lock of a build that nobody makes (`node/extensions.py`)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from clusterlm.node.extensions import EXTENSIONS, WAITS, ownerless_locks

LOOK_EVERY_S = 15.0
OLD_S = 60.0
"""A holder on another node of a shared folder may have built this long; then it is worth a word."""


def lock_words(folder: Path, *, since: float, now: float) -> str | None:
    """What to say of a lock that keeps this rank waiting, or None.

    Args:
        folder: where torch compiles.
        since: when this rank began; a lock that was there before it is not its own.
        now: unix seconds, as `since`.
    """
    for lock, age_s in ownerless_locks(folder, now=now):
        if now - age_s < since and now - since > OLD_S:
            return (
                f"{WAITS} that no process of this node makes: {lock}, {age_s:.0f} s old. If no "
                f"other node compiles there: rm {lock}"
            )
    return None


def watch_build_locks(tell: Callable[[str], None]) -> None:
    """Look from now on, beside the training: whoever hangs in torch's wait cannot say it."""
    folder = os.environ.get(EXTENSIONS)
    if not folder:
        return
    since = time.time()

    def look() -> None:
        said = False
        while not said:
            time.sleep(LOOK_EVERY_S)
            if words := lock_words(Path(folder), since=since, now=time.time()):
                tell(words)
                said = True

    threading.Thread(target=look, name="build-locks", daemon=True).start()
