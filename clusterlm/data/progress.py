"""How far the phase is, told to whoever watches the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from clusterlm.node.progress import report_progress

MB = 1_000_000


@dataclass(frozen=True)
class Progress:
    """What the phase does, in words; and bytes of source text, where they are known."""

    text: str
    done: int = 0
    total: int = 0


Report = Callable[[Progress], None]


class RunReporter:
    """Tells the run; a step is a megabyte of source text."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        # when the first bytes were done: what came before says nothing about the speed
        self._start: tuple[float, int] | None = None

    def __call__(self, progress: Progress) -> None:
        stage = progress.text.split(" ")[0]
        if stage != self._stage:
            self._start = None
        # of a compressed file more may come than its size on the disk
        total = max(progress.done, progress.total)
        report_progress(
            step=progress.done // MB if total else None,
            total_steps=-(-total // MB) if total else None,
            eta_s=self._eta_s(progress),
            text=progress.text,
            # a new stage is told at once, since it may take long
            force=stage != self._stage,
        )
        self._stage = stage

    def _eta_s(self, progress: Progress) -> float | None:
        if not progress.done:
            return None
        now = self._clock()
        started, before = self._start = self._start or (now, progress.done)
        if progress.done <= before:
            return None
        left = max(0, progress.total - progress.done)
        return round((now - started) / (progress.done - before) * left, 1)
