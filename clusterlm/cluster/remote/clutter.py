"""What lies in a cluster's folder and is needed by nobody; nothing is removed here.

    software     other versions: no run that has not ended, or may be resumed, names them, and no
                 call has used them for an hour; the newest and the one that runs now stay
    snapshots    code that no run needs (`needs.py`), older than the limit
    uploads      the same of data
    objects      contents that no upload shares, not sent and not asked for within the limit. Runs
                 need none: a snapshot is a copy, an upload a second name of the same file. One that
                 goes is sent again when it is wanted
    submits      what was kept of submits whose runs have ended
    leftovers    of what was cut off: half transfers, half folders, half installations

What has a name that we would not give is not ours and is left alone. No link is followed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clusterlm.cluster.remote.asked import ASKED, asked_since
from clusterlm.cluster.remote.installations import Installation, find_installations
from clusterlm.cluster.remote.needs import Needs
from clusterlm.spec.wording import printable

REMOVED = ".removed"
"""Below the folder: what is on its way out; of a cleaning that was killed it is removed first."""
HALF_DONE_S = 86400.0
"""What is being written is younger."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SUBMIT = re.compile(r"[0-9a-f]{32}(\.report\.html)?")


@dataclass(frozen=True)
class Item:
    """One thing that may go.

    Attributes:
        kind: as above.
        path: of it.
        num_bytes: that its disk gets back.
        is_old: whether it still is unused for long enough; asked again right before it goes.
        also: goes with it.
    """

    kind: str
    path: Path
    num_bytes: int
    is_old: Callable[[], bool]
    also: Path | None = None


@dataclass
class Clutter:
    """All of it, and what to tell of the rest."""

    items: list[Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def of(self, kind: str) -> list[Item]:
        return [item for item in self.items if item.kind == kind]


def find_clutter(
    folder: Path,
    needs: Needs,
    *,
    now: float,
    older_than_s: float,
    prefix: str,
    in_use: Sequence[str] = (),
) -> Clutter:
    """Look through a cluster's folder.

    Args:
        folder: of the profile, without links.
        needs: of the runs.
        now: time.
        older_than_s: for everything but software.
        prefix: of the Python that runs this: its installation stays.
        in_use: names of software that processes of this machine run from.
    """
    clutter = Clutter(notes=[f"{why}: what its runs may need stays" for why in needs.blind])
    limit = now - older_than_s
    half_done = now - HALF_DONE_S
    _software(folder / "software", needs, clutter, now, prefix, in_use)
    _trees(folder, "snapshots", needs, clutter, limit)
    links = _trees(folder, "uploads", needs, clutter, limit)
    _objects(folder, clutter, limit, links)
    for entry in _entries(folder / "submits", clutter):
        is_ours = _SUBMIT.fullmatch(entry.name)
        if is_ours and entry.name[:32] not in needs.submits and not needs.blind:
            _add(clutter, "submits", entry, limit)
    for kind in ("snapshots", "uploads"):
        for entry in _entries(folder / kind, Clutter()):
            if re.fullmatch(r"\.[0-9a-f]{16}\.[0-9a-f]{12}", entry.name):
                _add(clutter, "leftovers", entry, half_done)
    # nobody goes on with these: they are out already
    for entry in _entries(folder / REMOVED, Clutter()):
        if re.fullmatch("[0-9a-f]{32}", entry.name):
            path = Path(entry.path)
            clutter.items.append(Item("leftovers", path, size_of(path), lambda: True))
    return clutter


def _software(
    folder: Path,
    needs: Needs,
    clutter: Clutter,
    now: float,
    prefix: str,
    in_use: Sequence[str],
) -> None:
    entries = list(_entries(folder, clutter))
    if not entries:
        return
    found = find_installations(folder)
    keep = {*needs.software, *in_use}
    for one in found.unneeded(keep, prefix, now=now, is_blind=bool(needs.blind)):
        clutter.items.append(_installation(one, now))
    for path in found.remains(now - HALF_DONE_S):
        clutter.items.append(_item("leftovers", path, now - HALF_DONE_S))


def _installation(one: Installation, now: float) -> Item:
    size = size_of(one.root)
    link, root = (one.path, one.root) if one.path != one.root else (one.path, None)

    def is_old() -> bool:
        # code that was called since the look has stayed, and needs its packages
        return one.is_quiet(now) and not one.is_stood_upon()

    return Item("software", link, size, is_old, also=root)


def _trees(
    folder: Path, kind: str, needs: Needs, clutter: Clutter, limit: float
) -> dict[tuple[int, int], int]:
    """Snapshots or uploads that go; gives how many names of each file go with them."""
    going: list[os.DirEntry[str]] = []
    staying: list[os.DirEntry[str]] = []
    for entry in _entries(folder / kind, clutter):
        if not _DIGEST.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
            continue
        is_needed = bool(needs.blind) or entry.name in needs.trees
        stays = is_needed or not _is_older(Path(entry.path), limit)
        (staying if stays else going).append(entry)
    shared = _links_in(staying) if kind == "uploads" and needs.is_busy and going else {}
    links: dict[tuple[int, int], int] = {}
    for entry in going:
        own = _links_in([entry])
        if not own.keys().isdisjoint(shared):
            # the kernel's note of the last change of a file that a job may be reading would change
            clutter.notes.append(
                f"{kind}/{entry.name[:12]} shares files with data in use; once no run is alive it"
                " goes"
            )
            continue
        for key, count in own.items():
            links[key] = links.get(key, 0) + count
        _add(clutter, kind, entry, limit)
    return links


def _links_in(entries: Sequence[os.DirEntry[str]]) -> dict[tuple[int, int], int]:
    counts: dict[tuple[int, int], int] = {}
    for entry in entries:
        for found in _walk(entry.path):
            if found.st_nlink > 1 and stat.S_ISREG(found.st_mode):
                key = (found.st_dev, found.st_ino)
                counts[key] = counts.get(key, 0) + 1
    return counts


def _objects(
    folder: Path, clutter: Clutter, limit: float, links: dict[tuple[int, int], int]
) -> None:
    asked = asked_since(folder, limit)
    for entry in _entries(folder / "objects" / ASKED, Clutter()):
        _add(clutter, "leftovers", entry, limit)
    for shelf in _entries(folder / "objects", clutter):
        if not re.fullmatch("[0-9a-f]{2}", shelf.name):
            continue
        for entry in _entries(Path(shelf.path), Clutter()):
            if not entry.is_file(follow_symlinks=False):
                continue
            if entry.name.startswith("."):
                # a part that nobody went on with
                _add(clutter, "leftovers", entry, limit)
            elif _DIGEST.fullmatch(entry.name) and entry.name not in asked:
                found = entry.stat(follow_symlinks=False)
                gone = links.get((found.st_dev, found.st_ino), 0)
                if found.st_nlink - gone == 1:
                    _add(clutter, "objects", entry, limit)


def _add(clutter: Clutter, kind: str, entry: os.DirEntry[str], limit: float) -> None:
    path = Path(entry.path)
    if _is_older(path, limit):
        clutter.items.append(_item(kind, path, limit))


def _item(kind: str, path: Path, limit: float) -> Item:
    return Item(kind, path, size_of(path), lambda: _is_older(path, limit))


def _is_older(path: Path, limit: float) -> bool:
    try:
        return os.lstat(path).st_mtime < limit
    except OSError:
        return False


def _entries(folder: Path, clutter: Clutter) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder; nothing when it is a link, which may lead anywhere."""
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            clutter.notes.append(f"{printable(str(folder))} is a link or no folder: left alone")
            return
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as error:
        clutter.notes.append(f"{printable(str(folder))} cannot be read ({error.strerror})")
        return
    yield from entries


def size_of(path: Path) -> int:
    """What its removal frees: a file that has other names frees nothing, but for an object."""
    try:
        top = os.lstat(path)
    except OSError:
        return 0
    if not stat.S_ISDIR(top.st_mode):
        return 512 * top.st_blocks
    found = _walk(str(path))
    return 512 * sum(f.st_blocks for f in found if stat.S_ISDIR(f.st_mode) or f.st_nlink == 1)


def _walk(path: str) -> Iterator[os.stat_result]:
    waiting = [path]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    yield entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            continue
