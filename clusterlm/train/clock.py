"""Where the time before the first step goes.

[clusterlm] first step after 14.2 s: imports 9.1, process group 0.8, model 0.9, data 0.1, ...
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil


class StartClock:
    """Seconds since this process was started, by phase."""

    def __init__(self, started: float, now: Callable[[], float] = time.time) -> None:
        self._started = started
        self._now = now
        self._last = started
        self.phases: dict[str, float] = {}

    @classmethod
    def of_this_process(cls) -> StartClock:
        """Starts with the process, so that Python's own start and all imports count."""
        return cls(psutil.Process().create_time())

    def mark(self, phase: str) -> None:
        """End `phase`: it took the time since the mark before."""
        now = self._now()
        self.phases[phase] = self.phases.get(phase, 0.0) + now - self._last
        self._last = now

    def line(self) -> str:
        """The sum and its parts, in seconds."""
        parts = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in self.phases.items())
        return f"first step after {self._last - self._started:.1f} s: {parts}"
