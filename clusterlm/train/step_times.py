"""How long training steps take: together, and each for itself.

Evaluation and saving do not count: they would make the line after them look slow.

Nothing waits for the GPU. The sum is host time between two log lines, and reading the loss for a
line waits for the GPU anyway. Single steps are the distances of CUDA events, which the GPU notes as
it comes by: on the host a step ends when its work is queued, not when it is done.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Spent:
    """Seconds of the steps since the last look.

    Attributes:
        seconds: all of them.
        num_steps: how many.
        p50: half of the steps took no longer.
        p95: 95 of 100 took no longer.
    """

    seconds: float
    num_steps: int
    p50: float
    p95: float


class StepTimes:
    """Measures the time spent in training steps."""

    def __init__(self, *, on_gpu: bool = False, now: Callable[[], float] = time.monotonic) -> None:
        self._on_gpu = on_gpu
        self._now = now
        self._mark = now()
        self._seconds = 0.0
        self._moment: Any = None
        self._steps: list[tuple[Any, Any]] = []

    def start(self) -> None:
        """Training begins."""
        self._seconds = 0.0
        self._steps = []
        self.resume()

    def count(self) -> None:
        """A step has ended."""
        before, self._moment = self._moment, self._note()
        if before is not None:
            self._steps.append((before, self._moment))
        self._add()

    def resume(self) -> None:
        """Training goes on after something else."""
        self._moment = self._note()
        self._mark = self._now()

    def take(self) -> Spent:
        """The steps since the last call; then begins anew."""
        self._add()
        durations = sorted(self._between(first, last) for first, last in self._steps)
        seconds = max(self._seconds, 1e-9)
        spent = Spent(
            seconds, len(durations), percentile(durations, 0.5), percentile(durations, 0.95)
        )
        self._seconds, self._steps = 0.0, []
        return spent

    def _add(self) -> None:
        now = self._now()
        self._seconds += now - self._mark
        self._mark = now

    def _note(self) -> Any:
        if not self._on_gpu:
            return self._now()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _between(self, first: Any, last: Any) -> float:
        if not self._on_gpu:
            return float(last - first)
        # the loss was read after it: it has passed
        last.synchronize()
        return float(first.elapsed_time(last)) / 1000


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed; 0 of nothing."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
