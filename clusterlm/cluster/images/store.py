"""What lies in the images folder, which runs use it, and how it goes: `images ls`, `rm`, `gc`."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clusterlm.cluster.host import Host
from clusterlm.cluster.images.engine import engine_named
from clusterlm.cluster.images.execute import log_path
from clusterlm.cluster.images.record import ImageRecord, read_seal, record_from, seal_path
from clusterlm.cluster.places import all_runs_dirs
from clusterlm.errors import ImageError
from clusterlm.image_paths import ImagePaths, images_dir
from clusterlm.node.files import read_json

_RECORD = re.compile(r"[0-9a-f]{16}\.json")
# what an import or a context leaves when it is killed
_REMAINS = re.compile(r"\.[0-9a-f]{16}\.(?:(?:sqsh|sif)\.importing\..+|[0-9a-f]{12}(?:\.old)?)")

# and with them what a build that failed leaves: its context, its log, its lock
_OF_A_BUILD = re.compile(r"\.?([0-9a-f]{16})(?:|\.log|\.lock|\..+\.importing\..+|\.[0-9a-f]{12}.*)")


@dataclass(frozen=True)
class Stored:
    """One image of the folder.

    Attributes:
        record: what is known of it.
        runs: names of the runs that were submitted with it.
        unfinished: those of them that have not ended.
        has_file: whether its .sqsh or .sif is there and whole.
    """

    record: ImageRecord
    runs: tuple[str, ...]
    unfinished: tuple[str, ...]
    has_file: bool

    @property
    def paths(self) -> ImagePaths:
        return ImagePaths(self.record.recipe)

    def to_json(self) -> dict[str, Any]:
        """What `images ls --json` prints."""
        file = str(images_dir() / self.record.file) if self.has_file and self.record.file else None
        return {
            **asdict(self.record),
            "file": file,
            "runs": list(self.runs),
            "unfinished": list(self.unfinished),
        }


def stored_images() -> list[Stored]:
    """The images of the folder, the newest first."""
    users = _users()
    unfinished = _unfinished([run for runs in users.values() for run in runs])
    found = []
    for record in _records():
        runs = tuple(sorted(users.get(record.recipe, ())))
        alive = tuple(run for run in runs if run in unfinished)
        has_file = bool(record.file and read_seal(images_dir() / record.file))
        found.append(Stored(record, runs, alive, has_file))
    return sorted(found, key=lambda image: image.record.built, reverse=True)


def choose(images: Sequence[Stored], prefixes: Sequence[str]) -> list[Stored]:
    """The images whose recipe begins so.

    Raises:
        ImageError: a prefix that fits none, or several.
    """
    chosen = []
    for prefix in prefixes:
        fitting = [i for i in images if i.record.recipe.startswith(prefix)]
        if len(fitting) != 1:
            there = ", ".join(i.paths.short for i in fitting or images) or "none"
            what = "no image begins with" if not fitting else "several images begin with"
            raise ImageError(f"{what} {prefix}; there are: {there}")
        chosen.append(fitting[0])
    return list(dict.fromkeys(chosen))


def refuse_used(images: Sequence[Stored]) -> None:
    """Raise when a run that has not ended uses one of them.

    Raises:
        ImageError: with the runs.
    """
    used = [i for i in images if i.unfinished]
    if used:
        rows = [f"  {i.paths.short}  {', '.join(i.unfinished)}" for i in used]
        raise ImageError(
            "\n".join(
                [
                    "runs that have not ended use what is to be removed:",
                    *rows,
                    "  cancel them first, or add --force: they cannot be retried then",
                ]
            )
        )


def remove(image: Stored, host: Host, tell: Callable[[str], None]) -> int:
    """Take an image away: file, record, context, log, and its name in docker or podman.

    Returns:
        Bytes that have become free in the images folder.

    Raises:
        ImageError: it is being built or imported.
    """
    paths = image.paths
    with _locked_now(paths):
        size = sum(_size(file) for file in (paths.squashfs, paths.sif, paths.context))
        # the seal first: a file without it is not whole
        for file in (paths.squashfs, paths.sif):
            seal_path(file).unlink(missing_ok=True)
            file.unlink(missing_ok=True)
        _remove_tag(image.record, host, tell)
        shutil.rmtree(paths.context, ignore_errors=True)
        log_path(paths).unlink(missing_ok=True)
        paths.record.unlink(missing_ok=True)
        # last, and held: who waits for it looks again (build.locked)
        paths.lock.unlink(missing_ok=True)
    return size


def superfluous(images: Sequence[Stored], keep: int) -> list[Stored]:
    """All but the newest `keep`, and what unfinished runs use. Pure."""
    return [i for i in images[keep:] if not i.unfinished]


def remains() -> list[Path]:
    """What killed imports and failed builds have left, and layers of imports from a registry."""
    found = []
    busy: set[str] = set()
    for folder in (images_dir(), images_dir() / "build"):
        for path in folder.iterdir() if folder.is_dir() else ():
            is_of = _OF_A_BUILD.fullmatch(path.name)
            if not is_of:
                continue
            paths = ImagePaths(is_of[1])
            if _is_busy(paths):
                busy.add(paths.short)
            elif _REMAINS.fullmatch(path.name) or not paths.record.exists():
                found.append(path)
    layers = images_dir() / "layers"
    # an import that runs reads them
    return [*sorted(found), *([layers] if layers.is_dir() and not busy else [])]


def remove_remains(path: Path) -> int:
    """Remove one of them, and say how many bytes it had."""
    size = _size(path)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return size


def _records() -> Iterator[ImageRecord]:
    folder = images_dir()
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if _RECORD.fullmatch(path.name) and (found := read_json(path)):
            record = record_from(found)
            if record and ImagePaths(record.recipe).record == path:
                yield record


def _users() -> dict[str, list[str]]:
    """Runs by the recipe that their lock.json names."""
    users: dict[str, list[str]] = {}
    for lock in (lock for folder in all_runs_dirs() for lock in folder.glob("*/lock.json")):
        image = (read_json(lock) or {}).get("image")
        recipe = image.get("recipe") if isinstance(image, dict) else None
        if recipe and not lock.parent.name.startswith("."):
            users.setdefault(str(recipe), []).append(lock.parent.name)
    return users


def _unfinished(runs: Sequence[str]) -> set[str]:
    """Those that have not ended, or of which nobody knows."""
    if not runs:
        return set()
    from clusterlm.cluster.status import read_runs

    found = set()
    for folder in all_runs_dirs():
        own = [run for run in runs if (folder / run).is_dir()]
        found |= {s.run for s in read_runs(folder, own) if own and not s.state.is_final}
    return found


def _remove_tag(record: ImageRecord, host: Host, tell: Callable[[str], None]) -> None:
    try:
        engine = engine_named(host, record.builder)
        if engine.image(record.tag) is None:
            return
        done = engine.remove(record.tag)
        trouble = "" if done.is_ok else done.err.strip()
    except ImageError as error:
        trouble = str(error)
    if trouble:
        tell(f"note: {record.tag} stays in {record.builder}: {trouble.splitlines()[0]}")


@contextlib.contextmanager
def _locked_now(paths: ImagePaths) -> Iterator[None]:
    with paths.lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ImageError(f"{paths.short} is being built or imported right now") from error
        yield


def _is_busy(paths: ImagePaths) -> bool:
    if not paths.lock.exists():
        return False
    try:
        with _locked_now(paths):
            return False
    except ImageError:
        return True


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(p.lstat().st_size for p in path.rglob("*") if not p.is_dir())
    return path.stat().st_size if path.exists() else 0
