"""What the runs of a cluster still need of its folder: code and data that was sent, and software.

A run names them in its own files (`spec.json`, `lock.json`, scripts), so those are searched for
names of trees and of software. A run that is DONE needs what its spec names: nothing resumes it,
but it may be merged or talked to. Every other one needs all that its files name, also the one
that has ended: it may be resumed. Slurm is not asked: a run without a recorded end counts as alive.

Where something cannot be read, it is said (`blind`), and nothing goes that a run might need.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clusterlm.cluster.places import all_runs_dirs
from clusterlm.cluster.remote.asked import RUNS_DIRS
from clusterlm.node.files import read_jsonl
from clusterlm.paths import RunPaths
from clusterlm.spec.wording import printable
from clusterlm.supervise.causes import State
from clusterlm.supervise.history import read_history

LARGEST_TEXT = 64 * 2**20
_OWN = {".submits", ".elsewhere"}
_TREE = re.compile(rb"/(?:snapshots|uploads)/([0-9a-f]{64})(?![0-9a-f])")
_SOFTWARE = re.compile(rb"/software/([A-Za-z0-9][A-Za-z0-9.+_-]*)/")


@dataclass(frozen=True)
class Needs:
    """What must stay.

    Attributes:
        trees: digests of snapshots and uploads.
        software: names of installations.
        submits: keys of submits whose runs have not ended.
        blind: why not everything is known; empty when it is.
        is_busy: some run has not ended.
    """

    trees: frozenset[str] = frozenset()
    software: frozenset[str] = frozenset()
    submits: frozenset[str] = frozenset()
    blind: tuple[str, ...] = ()
    is_busy: bool = False


def read_needs(folder: Path, further: Iterable[Path] = ()) -> Needs:
    """Look at every run that may use a cluster's folder.

    Args:
        folder: of the profile.
        further: folders of runs that are known besides.
    """
    blind: list[str] = []
    trees: set[bytes] = set()
    software: set[bytes] = set()
    submits: set[str] = set()
    is_busy = False
    for run in _run_folders(folder, further, blind):
        try:
            end = _end_of(run)
            if end is None:
                is_busy = True
                submits |= _keys_of(run)
            for file in [run.spec] if end == State.DONE.value else _texts(run):
                text = _content(file)
                trees |= set(_TREE.findall(text))
                if end != State.DONE.value:
                    software |= set(_SOFTWARE.findall(text))
        except (OSError, ValueError, KeyError, TypeError) as error:
            blind.append(f"{printable(str(run.root))} cannot be read ({error})")
    return Needs(_words(trees), _words(software), frozenset(submits), tuple(blind), is_busy)


def _words(found: set[bytes]) -> frozenset[str]:
    return frozenset(word.decode() for word in found)


def _run_folders(folder: Path, further: Iterable[Path], blind: list[str]) -> Iterator[RunPaths]:
    for runs_dir, was_used in _runs_dirs(folder, further, blind).items():
        try:
            with os.scandir(runs_dir) as found:
                # those that are being made (`.NAME.KEY.*`) too
                names = sorted(e.name for e in found if _may_be_run(e) and e.name not in _OWN)
        except FileNotFoundError:
            # its file system may not be mounted here
            if (was_used and runs_dir.parent != folder) or runs_dir.is_symlink():
                blind.append(f"{printable(str(runs_dir))}, where runs lay, is not there")
            continue
        except OSError as error:
            blind.append(f"{printable(str(runs_dir))} cannot be read ({error.strerror})")
            continue
        yield from (RunPaths(runs_dir / name) for name in names)


def _may_be_run(entry: os.DirEntry[str]) -> bool:
    # a link that leads nowhere: to a file system that is not mounted here
    return entry.is_dir() or (entry.is_symlink() and not os.path.isfile(entry.path))


def _runs_dirs(folder: Path, further: Iterable[Path], blind: list[str]) -> dict[Path, bool]:
    """Of every profile that shares the folder, and those that were used before.

    Returns:
        Whether somebody has named it for runs that use this folder.
    """
    found = dict.fromkeys([folder / "runs", *all_runs_dirs(), *further], False)
    for file in sorted(folder.glob("profiles/*/clusters.yaml")):
        try:
            # JSON below a line with the mark, see profile_there.py
            profiles = json.loads(file.read_text("utf-8").partition("\n")[2])["clusters"]
            named = [profile.get("runs_dir") for profile in profiles.values()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            blind.append(f"{printable(str(file))} cannot be read ({type(error).__name__})")
            continue
        found |= {Path(text): True for text in named if isinstance(text, str)}
    for note in sorted(folder.glob(f"{RUNS_DIRS}/[!.]*")):
        try:
            found[Path(note.read_text("utf-8").strip())] = True
        except (OSError, ValueError) as error:
            blind.append(f"{printable(str(note))} cannot be read ({type(error).__name__})")
    return found


def _end_of(run: RunPaths) -> str | None:
    """How it ended; None for one that lives, or that is being made."""
    if not run.events.exists():
        return None
    end = read_history(run).end
    return str(end.get("state")) if end is not None else None


def _keys_of(run: RunPaths) -> set[str]:
    if not run.events.exists():
        return set()
    return {str(event["key"]) for event in read_jsonl(run.events)[0] if event.get("key")}


def _texts(run: RunPaths) -> Iterator[Path]:
    """Its own small files; logs, metrics and what training wrote name nothing of ours.

    Raises:
        OSError: its folder cannot be read.
    """
    # not `is_dir`: from Python 3.14 on it is false of what may not be looked at, too
    names = os.listdir(run.root)
    inner = os.listdir(run.submitit) if run.submitit.name in names else []
    files = [*(run.root / name for name in names), *(run.submitit / name for name in inner)]
    yield from (path for path in sorted(files) if path.suffix != ".jsonl")


def _content(file: Path) -> bytes:
    """Empty for what is no file.

    Raises:
        ValueError: it is too large to be searched.
    """
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return b""
    if not stat.S_ISREG(found.st_mode) or file.suffix in (".out", ".err", ".log"):
        return b""
    if found.st_size > LARGEST_TEXT:
        raise ValueError(f"{file.name} is too large")
    return file.read_bytes()
