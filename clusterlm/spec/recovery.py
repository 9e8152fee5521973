"""What happens when something breaks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from clusterlm.spec.base import Spec
from clusterlm.spec.units import Flag, Seconds


class Recovery(Spec):
    """Restarts and how patient they are."""

    max_attempts_without_progress: int = Field(3, ge=1, le=100)
    """Give up after this many attempts in a row that left no newer checkpoint."""
    min_nodes: int | None = Field(None, ge=1)
    """Go on with so few nodes when some are lost and no spare is left; default: resources.nodes.
    Each rank then makes more passes, so that a step takes as many blocks as before."""
    requeue: Flag = True
    """Go back to the queue on preemption, at the time limit and when too few nodes are left."""
    stop_grace: Seconds = 120
    """Time to save and end after a stop request, and how long before the time limit one is sent."""
    heartbeat_timeout: Seconds = Field(default=30, ge=10)
    """A node that has not written its heartbeat for so long is taken as lost."""
    startup_timeout: Seconds = 1800
    """An attempt in which no rank has started by then has failed."""
    hang_after: Literal["auto"] | Seconds = "auto"
    """No new training step for so long is a hang; auto: 20 times the usual step, at least 10 min.
    """
