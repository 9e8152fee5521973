"""Is a file system full on which a run writes? It also swallows the record that would say so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from clusterlm.node.room import room_at
from clusterlm.paths import RunPaths, cache_dir
from clusterlm.supervise.causes import Cause

MAY_HIDE_IT = (
    *(Cause.DISK_FULL, Cause.SUPERVISOR, Cause.VANISHED, Cause.RANK_FAILED, Cause.RANK_KILLED),
    *(Cause.LAUNCH, Cause.SCHEDULER, Cause.NO_PROGRESS, Cause.STARTUP, Cause.PREPROCESS_FAILED),
)
"""Ends of which a full disk may be the reason, although no record could be written to say it."""
_PATH = re.compile(r"(?:No space left on device|Disk quota exceeded)[^'\n]*'(/[^'\n]+)'")


def disk_words(run: RunPaths, cause: Cause | None, error: str) -> str:
    """Which file system is full, or, of a run that a full disk has ended, what room there is now.

    Args:
        run: it writes to its own folder, to the cache of prepared data, and where `error` says.
        cause: of its end.
        error: may name the file.

    Returns:
        Empty where the disk has nothing to do with it.
    """
    if cause is not None and cause not in MAY_HIDE_IT:
        return ""
    rooms = list(_rooms(run, error))
    if full := [words for words, is_full in rooms if is_full]:
        return "; ".join(full)
    return f"there is room again: {rooms[0][0]}" if cause is Cause.DISK_FULL and rooms else ""


def is_full(words: str) -> bool:
    """Whether `disk_words` has found one that is full now."""
    return bool(words) and not words.startswith("there is room")


def _rooms(run: RunPaths, error: str) -> Iterator[tuple[str, bool]]:
    named = [("the file it wrote", Path(path)) for path in _PATH.findall(error)]
    seen = set()
    for what, path in (*named, ("the run", run.root), ("the prepared data", cache_dir())):
        room = room_at(path)
        if room is not None and room.mount not in seen:
            seen.add(room.mount)
            yield f"{room.words} ({what}: {path})", room.is_full
