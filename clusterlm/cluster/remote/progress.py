"""How far a large file is: a line now and then, none for one that takes a moment."""

from __future__ import annotations

import time
from collections.abc import Callable

from clusterlm.cluster.remote.snapshot import spoken_size

EVERY_S = 5.0


def now_and_then(
    name: str, tell: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
) -> Callable[[int, int], None]:
    """What takes the bytes that are there, and how many there will be."""
    said_at = clock()

    def progress(done: int, total: int) -> None:
        nonlocal said_at
        if clock() - said_at >= EVERY_S:
            said_at = clock()
            tell(f"  {name}: {spoken_size(done)} of {spoken_size(total)}")

    return progress
