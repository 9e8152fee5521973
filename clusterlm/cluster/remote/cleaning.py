"""`clusters clean` on the cluster itself: looks, removes if it is asked to, and says it as JSON.

{"folder": "/home/anna/clusterlm", "removed": false, "bytes": 734003200,
 "groups": [{"kind": "software", "count": 2, "bytes": 641728512, "names": ["0.3.1-...", ...]}],
 "notes": ["..."]}
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clusterlm.cluster.remote.clutter import Item, find_clutter
from clusterlm.cluster.remote.installations import names_in_use
from clusterlm.cluster.remote.needs import read_needs
from clusterlm.cluster.remote.snapshot import spoken_size
from clusterlm.cluster.remote.sweep import ORDER, sweep
from clusterlm.errors import ClusterLMError
from clusterlm.spec.clusters import folders_of
from clusterlm.spec.profile import Profile
from clusterlm.spec.units import spoken

WORDS = {
    "software": "software of other versions",
    "snapshots": "code that no run needs",
    "uploads": "data that no run needs",
    "objects": "files that were sent",
    "submits": "records of submits",
    "leftovers": "leftovers of what was cut off",
}
"""Of each kind; also the order of the rows."""
SHORTEST_S = 86400.0
NAMES_SHOWN = 20


def clean(
    profile: Profile, *, older_than_s: float, remove: bool, now: float | None = None
) -> dict[str, Any]:
    """Look at a profile's folder on this machine, or remove what nobody needs.

    Args:
        profile: without host.
        older_than_s: how long it has not been used; software goes by its own rule.
        remove: do it.
        now: time, for tests.

    Raises:
        ClusterLMError: the profile has no folder, or the limit is so short that what is being sent
            right now would go.
    """
    if not profile.folder:
        raise ClusterLMError("its profile has no `folder`: nothing of clusterlm lies there")
    if older_than_s < SHORTEST_S:
        raise ClusterLMError(
            f"--older-than {spoken(older_than_s)}: at least 1d, for a large submit takes hours and "
            "what it has sent so far is in no run yet"
        )
    now = time.time() if now is None else now
    folder = Path(profile.folder).expanduser().resolve()
    runs_dir = folders_of(profile).get("CLUSTERLM_RUNS_DIR")
    needs = read_needs(folder, [Path(runs_dir)] if runs_dir else [])
    clutter = find_clutter(
        folder,
        needs,
        now=now,
        older_than_s=older_than_s,
        prefix=sys.prefix,
        in_use=sorted(names_in_use()),
    )
    if not remove:
        return _answer(folder, clutter.items, clutter.notes, removed=False)
    if not clutter.items:
        return _answer(folder, [], clutter.notes, removed=True)
    swept = sweep(folder, clutter, asked_after=now - older_than_s)
    return _answer(folder, swept.items, [*clutter.notes, *swept.left], removed=True)


def _answer(folder: Path, items: list[Item], notes: list[str], *, removed: bool) -> dict[str, Any]:
    groups = []
    for kind in WORDS:
        own = [item for item in items if item.kind == kind]
        if own:
            group = {"kind": kind, "count": len(own), "bytes": sum(i.num_bytes for i in own)}
            # digests mean nothing to anybody
            names = [item.path.name for item in own] if kind == "software" else []
            groups.append({**group, "names": names[:NAMES_SHOWN]})
    num_bytes = sum(item.num_bytes for item in items)
    found = {"folder": str(folder), "removed": removed, "bytes": num_bytes}
    return {**found, "groups": groups, "notes": notes}


def rows_of(answer: Mapping[str, Any]) -> list[str]:
    """The table, of an answer that another machine may have given.

    Raises:
        ClusterLMError: it is no answer.
    """
    try:
        rows = [
            (
                f"{int(group['count']):>7,}",
                WORDS[group["kind"]],
                f"{spoken_size(int(group['bytes'])):>9}",
                ", ".join(map(str, group["names"])),
            )
            for group in answer["groups"]
        ]
        notes = [f"note: {note}" for note in answer["notes"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ClusterLMError("what came back of the cleaning is no answer") from error
    width = max(len(words) for words in WORDS.values())
    lines = [f"{n}  {words:<{width}}  {size}  {names}".rstrip() for n, words, size, names in rows]
    return [*lines, *notes]


def bytes_of(answer: Mapping[str, Any], kind: str | None = None) -> int:
    """How much of it goes: all, or of one kind; 0 for what is no answer."""
    try:
        groups = [group for group in answer["groups"] if kind in (None, group["kind"])]
        return sum(int(group["bytes"]) for group in groups)
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0


assert set(WORDS) == set(ORDER)
