"""The supervisor's own heartbeat, `supervisor.json`: what readers look at before they ask Slurm."""

from __future__ import annotations

import time

from clusterlm.node.files import read_json, write_json
from clusterlm.paths import Phase, RunPaths
from clusterlm.supervise.allocation import Allocation

BEAT_EVERY_S = 5.0


class Pulse:
    """Writes the file every 5 s while it is asked to, and at once at a change."""

    def __init__(self, run: RunPaths, phase: Phase, allocation: Allocation) -> None:
        self._run, self._phase, self._allocation = run, phase, allocation
        self._beat, self._written = 0, 0.0
        self.attempt: int | None = None

    def beat(self, state: str, nodes: dict[str, float] | None = None) -> None:
        """Write if it is time.

        Args:
            state: what the supervisor does, in its own word.
            nodes: seconds since each node's heartbeat changed.
        """
        if time.monotonic() - self._written >= BEAT_EVERY_S:
            self.write(state, nodes)

    def end(self) -> None:
        """Say that the silence from here on is on purpose, unless the next phase beats already."""
        now = read_json(self._run.supervisor) or {}
        if now.get("job_id", self._allocation.job_id) == self._allocation.job_id:
            self.write("ended")

    def write(self, state: str, nodes: dict[str, float] | None = None) -> None:
        """Write now."""
        self._beat += 1
        self._written = time.monotonic()
        fields = {
            "time": time.time(),
            "beat": self._beat,
            "phase": self._phase,
            "attempt": self.attempt,
            "job_id": self._allocation.job_id,
            "restart": self._allocation.restart,
            "host": self._allocation.head,
            "state": state,
            "nodes": nodes or {},
        }
        write_json(self._run.supervisor, fields)
