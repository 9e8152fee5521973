"""The wish to save and end: a file that the agent writes, or SIGTERM to this very process.

Slurm sends SIGTERM to every process of a step when it preempts; a rank that died of it would take
its last steps with it. So the signal only sets a flag, and the ranks decide together after a step.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType

from clusterlm.node.progress import stop_requested

# between two looks at the file: it may lie on a parallel filesystem
INTERVAL_S = 0.5


class StopRequest:
    """Whether this rank was asked to stop; once it was, it stays so."""

    def __init__(self, *, reads_file: bool, now: Callable[[], float] = time.monotonic) -> None:
        """`reads_file` is true on rank 0: one look for all ranks is enough."""
        self._reads_file = reads_file
        self._now = now
        self._next_look = 0.0
        self._asked = False

    def catch_sigterm(self) -> None:
        """From now on SIGTERM asks instead of killing."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def asked(self) -> bool:
        """Look at the file, at most every half second."""
        if not self._asked and self._reads_file and self._now() >= self._next_look:
            self._next_look = self._now() + INTERVAL_S
            self._asked = stop_requested()
        return self._asked

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
