"""With `cluster: local` no scheduler holds the training back until its data is there: wait."""

from __future__ import annotations

import time
from collections.abc import Callable

from clusterlm.data.whole import why_not_ready, why_not_whole
from clusterlm.paths import CachePaths
from clusterlm.supervise.allocation import process_lives

LOOK_EVERY_S = 0.3


def wait_for_data(
    cache: CachePaths, after_pid: str, is_cancelled: Callable[[], bool], *, with_model: bool = True
) -> None:
    """Wait until the data is ready, what prepares it is gone, or the run is cancelled.

    Args:
        cache: where it will be.
        after_pid: `pid@start time` of the process that prepares it.
        is_cancelled: asked at each look.
        with_model: and the resized model that goes with it.
    """
    pid, _, started = after_pid.partition("@")
    while not is_cancelled():
        if not (why_not_ready(cache) if with_model else why_not_whole(cache.root)):
            return
        if not process_lives(int(pid), float(started) if started else None):
            return
        time.sleep(LOOK_EVERY_S)
