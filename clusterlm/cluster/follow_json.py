"""`logs -f --json`: what a follower on another machine reads.

    {"lines": ["[rank 0 node1] step 40 ..."], "place": {...}}     new lines, and where they end
    {}                                                            still here
    {"end": "--- run is DONE ---"}                                the last

The empty object comes every 15 s: when the reader has gone, writing it ends this program.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from clusterlm.cluster.follow import follow
from clusterlm.cluster.follow_place import Place, changes, unpacked
from clusterlm.cluster.logs import Wanted
from clusterlm.cluster.table import one_line
from clusterlm.paths import RunPaths

STILL_HERE_S = 15.0


def follow_as_json(
    run: RunPaths,
    wanted: Wanted,
    count: int,
    start: str | None,
    *,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Follow a run to its end.

    Args:
        run: which.
        wanted: which of its lines.
        count: how many of those that are there, when it begins.
        start: go on from this place.
        say: gets each object.
        clock: by which silence is measured.
    """
    lines: list[str] = []
    told: Place | None = unpacked(start) if start else None
    said_at = clock()

    def came_to(place: Place) -> None:
        nonlocal told, said_at
        if lines or (told is None) or place != told:
            say(json.dumps({"lines": lines, "place": changes(told, place)}))
            lines.clear()
            told, said_at = place, clock()
        elif clock() - said_at >= STILL_HERE_S:
            say("{}")
            said_at = clock()

    end = follow(run, wanted, count, say=lines.append, place=told, came_to=came_to)
    if lines:
        say(json.dumps({"lines": lines}))
    say(json.dumps({"end": f"--- {run.name} is {one_line(end)} ---"}))
