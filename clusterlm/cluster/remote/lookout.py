"""The states of runs on clusters for who looks again and again: never waits but the first time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import cache

from clusterlm.cluster.remote.look_elsewhere import Connect, look_at
from clusterlm.cluster.remote.runs_elsewhere import Elsewhere
from clusterlm.cluster.run_status import RunStatus

LOOK_EVERY_S = 15.0
"""A call to each cluster so often: a login node is everybody's."""


class Lookout:
    """Looks in a thread, and says what it saw last."""

    def __init__(
        self,
        runs: Callable[[], Sequence[Elsewhere]],
        connect: Connect,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # one connection to each cluster, as long as this lives
        self._runs, self._connect, self._clock = runs, cache(connect), clock
        self._found: list[RunStatus] | None = None
        self._looked = 0.0
        self._thread: threading.Thread | None = None

    def statuses(self) -> list[RunStatus]:
        """The newest known; the first call waits for the clusters, some seconds at most."""
        if self._found is None:
            self._look()
        elif self._is_time():
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()
        return list(self._found or [])

    def _is_time(self) -> bool:
        is_looking = self._thread is not None and self._thread.is_alive()
        return not is_looking and self._clock() - self._looked >= LOOK_EVERY_S

    def _look(self) -> None:
        self._looked = self._clock()
        runs = self._runs()
        self._found = look_at(runs, self._connect)[0] if runs else []
