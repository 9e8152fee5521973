"""With `cluster: local` no scheduler holds the training back until its data is there: wait."""

from __future__ import annotations

import time
from collections.abc import Callable

from clusterlm.data.whole import why_not_whole
from clusterlm.paths import CachePaths
from clusterlm.supervise.allocation import process_lives

LOOK_EVERY_S = 0.3


def wait_for_data(cache: CachePaths, after_pid: str, is_cancelled: Callable[[], bool]) -> None:
    """Wait until the data is ready, what prepares it is gone, or the run is cancelled.

    Args:
        cache: where it will be.
        after_pid: `pid@start time` of the process that prepares it.
        is_cancelled: asked at each look.
    """
    pid, _, started = after_pid.partition("@")
    while why_not_whole(cache.root) and not is_cancelled():
        if not process_lives(int(pid), float(started) if started else None):
            return
        time.sleep(LOOK_EVERY_S)
