"""How fast it trains: tokens and steps per second between two log lines.

Evaluation and saving do not count: they would make the line after them look slow.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Measures the time spent in training steps."""

    def __init__(
        self, tokens_at: Callable[[int], int], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        """`tokens_at` gives the tokens seen after a step, by all ranks."""
        self.tokens_at = tokens_at
        self._now = now
        self._mark = now()
        self._since_step = 0
        self._seconds = 0.0

    def start(self, step: int) -> None:
        """Training begins, or goes on, after `step`."""
        self._since_step = step
        self._seconds = 0.0
        self._mark = self._now()

    def count(self) -> None:
        """A step has ended."""
        self._seconds += self._now() - self._mark
        self._mark = self._now()

    def resume(self) -> None:
        """Training goes on after something else."""
        self._mark = self._now()

    def take(self, step: int) -> tuple[float, float]:
        """Tokens and steps per second since the last call; then begins anew."""
        self.count()
        seconds = max(self._seconds, 1e-9)
        tokens = self.tokens_at(step) - self.tokens_at(self._since_step)
        rates = tokens / seconds, (step - self._since_step) / seconds
        self._since_step, self._seconds = step, 0.0
        return rates
