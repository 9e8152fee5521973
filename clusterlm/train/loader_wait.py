"""How long a rank waits for its loader.

On a GPU the host runs ahead: while it reads the next batch the GPU still has work queued. Only
where the GPU has run dry meanwhile was anything waited for, and an event that the GPU had not yet
reached says that it has not. So nothing here waits for the GPU itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch


class LoaderWait:
    """Seconds in which a rank had nothing to do but wait for its next batch."""

    def __init__(self, *, on_gpu: bool = False, now: Callable[[], float] = time.monotonic) -> None:
        self._on_gpu = on_gpu
        self._now = now
        self._seconds = 0.0

    def over(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches, the time of each measured."""
        while True:
            mark = self._queue_end()
            before = self._now()
            try:
                batch = next(batches)
            except StopIteration:
                return
            if mark is None or mark.query():
                self._seconds += self._now() - before
            yield batch

    def take(self) -> float:
        """Seconds since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _queue_end(self) -> Any:
        if not self._on_gpu:
            return None
        event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event
