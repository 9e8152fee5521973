"""Installations in a cluster's `software` folder, as `install_there.py` makes them.

    software/0.4.0-3f2a91c0d7e8      -> .made/0.4.0-3f2a91c0d7e8.1c9d04aa     the code
    software/deps-77aa01b2c3d4       -> .made/deps-77aa01b2c3d4.5e6f7081      what it requires

Which code stands upon which packages its `install.json` says.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clusterlm.node.files import read_json

QUIET_S = 3600.0
"""Software that a call has used within this time may be at work, also on another login node."""
USED = "USED"
"""Touched in an installation by calls that send something, see `there.py`."""
_CODE = re.compile(r"[0-9][A-Za-z0-9.+_]*(-[A-Za-z0-9.+_]+)*-[0-9a-f]{12}")
_DEPS = re.compile(r"deps-[0-9a-f]{12}")
_RUNS = re.compile(rb"/software/([A-Za-z0-9.+_-]+)/bin/")
# wheels/3f2a91c0d7e8, and what a name is exchanged through
_REST = re.compile(r"[0-9a-f]{12}|\..+\.[0-9a-f]{8}(\.old)?")
_MADE = re.compile(r"\.made/([A-Za-z0-9][A-Za-z0-9.+_-]*)")


@dataclass(frozen=True)
class Installation:
    """One virtual environment.

    Attributes:
        path: its name: a link, or of an older time the folder itself.
        root: the folder.
    """

    path: Path
    root: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def is_code(self) -> bool:
        return not self.name.startswith("deps-")

    @property
    def used(self) -> float:
        """When it was made or last called. A call reads READY; a disk may note that once a day."""
        times = []
        for file in ("READY", USED):
            try:
                found = os.lstat(self.root / file)
            except OSError:
                continue
            times += [found.st_mtime, found.st_atime]
        return max(times, default=os.lstat(self.root).st_mtime)

    @property
    def stands_on(self) -> str | None:
        """Name of the packages that code requires; None when it does not say."""
        deps = (read_json(self.root / "install.json") or {}).get("deps")
        return deps if isinstance(deps, str) else None

    def is_stood_upon(self) -> bool:
        """Some code that is there now may need these packages."""
        codes = [one for one in find_installations(self.path.parent).found if one.is_code]
        return not self.is_code and any(one.stands_on in (None, self.name) for one in codes)

    def is_quiet(self, now: float) -> bool:
        """Still the same, and nobody has used it of late."""
        try:
            is_same = self.path == self.root or _target(self.path) == self.root
            return is_same and self.used < now - QUIET_S
        except OSError:
            return False


@dataclass(frozen=True)
class Installations:
    """All of a folder."""

    folder: Path
    found: list[Installation] = field(default_factory=list)

    def unneeded(
        self, keep: Collection[str], prefix: str, *, now: float, is_blind: bool
    ) -> Iterator[Installation]:
        """Those that may go: code first, then packages that no other code stands upon.

        Args:
            keep: names of code that is needed.
            prefix: of the Python that runs now.
            now: time.
            is_blind: not all that is needed is known.
        """
        codes = [one for one in self.found if one.is_code]
        if is_blind or not codes:
            return
        newest = max(codes, key=_made)
        here = os.path.realpath(prefix)
        going = [
            one
            for one in codes
            if one is not newest
            and one.name not in keep
            and os.path.realpath(one.root) != here
            and one.is_quiet(now)
        ]
        yield from going
        staying = [one for one in codes if one not in going]
        stands_on = {one.stands_on for one in staying}
        # of one that does not say what it stands upon nothing is taken away
        if None in stands_on:
            return
        for one in self.found:
            if not one.is_code and one.name not in stands_on | set(keep) and one.is_quiet(now):
                yield one

    def remains(self, before: float) -> Iterator[Path]:
        """Half installations, replaced ones, and wheels that were installed."""
        # also by a link whose name is none of ours
        links = [path for path in _inside(self.folder) if path.is_symlink()]
        named = {os.path.basename(os.readlink(path)) for path in links}
        made, wheels = self.folder / ".made", self.folder / "wheels"
        for path in _inside(made):
            if path.name not in named and os.lstat(path).st_mtime < before:
                yield path
        for path in (*_inside(wheels), *_inside(self.folder)):
            if _REST.fullmatch(path.name) and os.lstat(path).st_mtime < before:
                yield path


def find_installations(folder: Path) -> Installations:
    """Look at the links in `software`; one that leads elsewhere is none."""
    found = []
    for path in sorted(folder.iterdir()):
        if not (_CODE.fullmatch(path.name) or _DEPS.fullmatch(path.name)):
            continue
        root = _target(path) if path.is_symlink() else path
        if root is not None and _is_folder(root):
            found.append(Installation(path, root))
    return Installations(folder, found)


def names_in_use() -> set[str]:
    """Names of installations that processes of this machine run from."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found |= set(_RUNS.findall(file.read_bytes()))
        except OSError:
            continue
    return {name.decode() for name in found}


def _target(link: Path) -> Path | None:
    try:
        match = _MADE.fullmatch(os.readlink(link))
    except OSError:
        return None
    return link.parent / ".made" / match[1] if match and _is_folder(link.parent / ".made") else None


def _made(one: Installation) -> float:
    try:
        return os.lstat(one.root / "READY").st_mtime
    except OSError:
        return 0.0


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if _is_folder(folder) else []


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
