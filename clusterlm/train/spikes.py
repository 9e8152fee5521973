"""Loss spikes: a loss far above those of the last lines.

Far is measured in the spread of those lines themselves, by median and median distance from it
(MAD), which a single earlier spike does not move: a loss is a spike above median + 6 x 1.4826 x
MAD. For noise that is normally distributed, 1.4826 x MAD is its standard deviation. A loss that
falls steadily has its median behind it, so only a rise is ever marked.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable

WINDOW = 20
"""Lines that are looked back at; over more, the fall of the loss itself would count as spread."""
FEWEST = 8
"""With fewer lines nobody can say what is usual."""
DEVIATIONS = 6.0
SMALLEST_RISE = 0.02
"""Share of the median; below it a rise is none, however calm the lines before were."""


class Spikes:
    """Looks at losses as they come."""

    def __init__(self, losses: Iterable[float] = ()) -> None:
        """`losses` are those logged before, oldest first."""
        self._losses: deque[float] = deque(losses, maxlen=WINDOW)

    def usual(self) -> float | None:
        """What a loss is at the moment; None where too few were seen."""
        return statistics.median(self._losses) if len(self._losses) >= FEWEST else None

    def is_one(self, loss: float) -> bool:
        """Whether this loss is a spike; then counts it among those seen."""
        usual = self.usual()
        is_spike = usual is not None and loss > usual + self._far(usual)
        self._losses.append(loss)
        return is_spike

    def _far(self, usual: float) -> float:
        spread = statistics.median(abs(loss - usual) for loss in self._losses)
        return max(DEVIATIONS * 1.4826 * spread, SMALLEST_RISE * abs(usual))
