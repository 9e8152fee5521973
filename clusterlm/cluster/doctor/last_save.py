"""How long the newest save of a run took, as rank 0 has logged it."""

from __future__ import annotations

import re
from pathlib import Path

from clusterlm.cluster.doctor.finding import Save
from clusterlm.cluster.tail import last_lines
from clusterlm.paths import AttemptPaths, RunPaths

LINES = 2000
# train/checkpoints.py: saved checkpoint-40 in 95.0 s (training stood still 12.0 s)
_SAVED = re.compile(rb"saved checkpoint-\d+ in (\d+(?:\.\d+)?) s")


def last_save(run: RunPaths) -> Save | None:
    """None when it has never saved."""
    for attempt in _newest_first(run.root / "attempts"):
        lines, _ = last_lines(AttemptPaths(attempt).rank_log(0), LINES)
        for line in reversed(lines):
            if match := _SAVED.search(line):
                return Save(run.name, float(match[1]))
    return None


def _newest_first(attempts: Path) -> list[Path]:
    found = [path for path in attempts.glob("*") if path.name.isdecimal()]
    return sorted(found, key=lambda path: int(path.name), reverse=True)
