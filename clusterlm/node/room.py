"""How much room is left on the file system of a path."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

LITTLE = 16 * 2**20
"""With less no checkpoint, and hardly a log, can be written."""
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Room:
    """Of one file system, as this process may use it."""

    mount: Path
    free: int
    total: int
    files_left: bool = True
    """False: there is room, but no file may be made any more (inodes)."""

    @property
    def is_full(self) -> bool:
        """Nothing of use can be written."""
        return self.free < LITTLE or not self.files_left

    @property
    def words(self) -> str:
        """`/scratch has 0 bytes free of 20.0 GiB`."""
        no_more = "" if self.files_left else ", and no file can be made (inodes)"
        return f"{self.mount} has {bytes_told(self.free)} free of {bytes_told(self.total)}{no_more}"


def room_at(path: Path) -> Room | None:
    """The room where a path lies, or would lie; None when nobody can say."""
    place = next((p for p in (path, *path.parents) if p.exists()), None)
    if place is None:
        return None
    try:
        seen = os.statvfs(place)
        mount = _mount_of(place.resolve())
    except OSError:
        return None
    # some file systems count no files: 0 of 0
    return Room(
        mount,
        free=seen.f_bavail * seen.f_frsize,
        total=seen.f_blocks * seen.f_frsize,
        files_left=seen.f_files == 0 or seen.f_favail > 0,
    )


def bytes_told(size: float) -> str:
    """`0 bytes`, `24.0 MiB`."""
    unit = 0
    while size >= 1024 and unit + 1 < len(_UNITS):
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def _mount_of(place: Path) -> Path:
    device = place.stat().st_dev
    while place != place.parent and place.parent.stat().st_dev == device:
        place = place.parent
    return place
