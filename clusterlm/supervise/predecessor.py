"""With `cluster: local` no scheduler holds the training back until its data is there: wait."""

from __future__ import annotations

import time
from typing import Protocol

from clusterlm.paths import CachePaths
from clusterlm.supervise.allocation import process_lives
from clusterlm.supervise.pulse import Pulse


class Waiting(Protocol):
    """What is waited with: it beats and knows of a cancel."""

    def is_cancelled(self) -> bool: ...

    pulse: Pulse


def wait_for_data(cache: CachePaths, after_pid: str, waiting: Waiting) -> bool:
    """Wait until the data is ready or the process that prepares it is gone.

    Returns:
        False when the run was cancelled meanwhile.
    """
    pid, _, started = after_pid.partition("@")
    while not cache.ready.exists():
        if waiting.is_cancelled():
            return False
        if not process_lives(int(pid), float(started) if started else None):
            break
        waiting.pulse.beat("waiting")
        time.sleep(0.3)
    return True
