"""Checkpoints: sealed, verified, chosen, put aside, pruned.

    python -m clusterlm.node.seal checkpoints/checkpoint-500 --step 500      # for your own scripts

A checkpoint is a folder `checkpoint-<step>`; its seal is a MANIFEST.json (`manifest.py`), written
after everything else. Without one it is half-written, or made by a script that does not seal.
Nothing here removes a checkpoint that is not known to be superseded by whole ones; what is broken
is renamed and left for a person.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from clusterlm.node.codes import EXIT_FENCED, EXIT_USAGE
from clusterlm.node.files import read_json, write_json
from clusterlm.node.manifest import (
    MANIFEST,
    SealError,
    find_wrong_content,
    find_wrong_size,
    flush_folder,
    measure_files,
)
from clusterlm.node.progress import Fenced, refuse_if_fenced

AT_REST_S = 5.0

_REMOVED = ".removed"
_NAME = re.compile(r"checkpoint-(\d+)")
_FILE_NAME = re.compile(r"checkpoint-(\d+)(?:\.\w+)?")


class Rejected(NamedTuple):
    """A newer checkpoint that was passed over, and why."""

    path: Path
    reason: str


class Survey(NamedTuple):
    """The newest whole checkpoint, and the newer ones that are not, newest first."""

    newest: Path | None
    rejected: list[Rejected]


def seal(folder: str | Path, step: int, attempt: int) -> Path:
    """Hash every file of `folder` and write its MANIFEST last; returns the path of the MANIFEST.

    Call it on one rank, after all ranks have written.

    Raises:
        SealError: nothing to seal, a file cannot be read, or it changed meanwhile.
    """
    folder = Path(folder)
    manifest = folder / MANIFEST
    manifest.unlink(missing_ok=True)
    files = measure_files(folder)
    write_json(manifest, {"step": step, "attempt": attempt, "time": time.time(), "files": files})
    flush_folder(folder)
    return manifest


def verify(folder: str | Path, *, full: bool = True) -> str | None:
    """What is wrong with the checkpoint, None when it is whole.

    Without `full` the files' presence and sizes must do; with it every byte is read. Files that
    the MANIFEST does not list are nobody's business.
    """
    folder = Path(folder)
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        return f"no readable {MANIFEST}"
    files, step = manifest.get("files"), manifest.get("step")
    if not isinstance(files, dict) or not files:
        return f"{MANIFEST} lists no files"
    if folder.name.startswith("checkpoint-") and folder.name != f"checkpoint-{step}":
        return f"{MANIFEST} is of step {step}"
    return find_wrong_size(folder, files) or (find_wrong_content(folder, files) if full else None)


def newest_verified(root: str | Path, *, full: bool = True) -> Survey:
    """Look from the newest down to the first that is whole, which is the one to resume from."""
    rejected: list[Rejected] = []
    for path in _newest_first(Path(root)):
        reason = verify(path, full=full)
        if reason is None:
            return Survey(path, rejected)
        rejected.append(Rejected(path, reason))
    return Survey(None, rejected)


def newest_step(root: str | Path) -> int | None:
    """How far the run has come, by MANIFESTs and sizes alone: cheap enough for every look."""
    newest = newest_verified(root, full=False).newest
    return _step_of(newest) if newest else None


def newest_unsealed(root: str | Path, *, now: float | None = None) -> Path | None:
    """For scripts that do not seal: the highest checkpoint that nobody writes to any more.

    A folder `checkpoint-<N>` or file `checkpoint-<N>[.pt]` in which nothing has changed for 5 s,
    by the time stamps of the file system and `now` (unix seconds, the clock of this machine when
    left out). That is a guess: a save that pauses for longer looks whole.
    """
    moment = time.time() if now is None else now
    for path in _newest_first(Path(root), files_too=True):
        if (path / MANIFEST).exists():
            # sealed: whole ones are found by their seal, broken ones by nobody
            continue
        changed = _last_change(path)
        if changed is not None and moment - changed >= AT_REST_S:
            return path
    return None


def quarantine(folder: str | Path, reason: str) -> Path:
    """Rename to `<name>.broken-<n>`: nobody resumes from it then. BROKEN.json holds the reason."""
    folder = Path(folder)
    write_json(folder / "BROKEN.json", {"reason": reason, "time": time.time()})
    asides = (folder.with_name(f"{folder.name}.broken-{number}") for number in itertools.count(1))
    return folder.rename(next(aside for aside in asides if not aside.exists()))


def prune(root: str | Path, keep: int, *, full: bool = False) -> list[Path]:
    """Remove sealed checkpoints older than the newest `keep` whole ones; returns what was removed.

    While fewer than `keep` are whole nothing is removed. Checkpoints without a MANIFEST stay.
    Whole means by sizes, as each was hashed when it was sealed; with `full` they are hashed again.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: at least one checkpoint must stay")
    num_whole = 0
    removed = []
    for left in Path(root).glob(f".*{_REMOVED}"):
        # a removal that a kill cut off
        shutil.rmtree(left, ignore_errors=True)
    for path in _newest_first(Path(root)):
        if not (path / MANIFEST).is_file():
            continue
        if num_whole == keep:
            _remove(path)
            removed.append(path)
        elif verify(path, full=full) is None:
            num_whole += 1
    return removed


def _newest_first(root: Path, *, files_too: bool = False) -> list[Path]:
    """`checkpoint-<N>` folders, with `files_too` also `checkpoint-<N>[.pt]` files, by step."""
    found = []
    for path in root.iterdir() if root.is_dir() else ():
        if path.is_dir():
            is_checkpoint = _NAME.fullmatch(path.name)
        else:
            is_checkpoint = _FILE_NAME.fullmatch(path.name) if files_too else None
        if is_checkpoint:
            found.append(path)
    return sorted(found, key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    match = _FILE_NAME.fullmatch(path.name)
    assert match, path
    return int(match[1])


def _last_change(path: Path) -> float | None:
    """The newest time stamp in it; None when it is empty or goes away meanwhile."""
    files = [inner for inner in path.rglob("*") if inner.is_file()] if path.is_dir() else [path]
    try:
        return max((inner.stat().st_mtime for inner in files), default=None)
    except OSError:
        return None


def _remove(folder: Path) -> None:
    # the name first: a removal that is cut off must leave nothing that looks whole, nor anything
    # that nobody removes
    aside = folder.with_name(f".{folder.name}{_REMOVED}")
    if aside.exists():
        shutil.rmtree(aside)
    folder.rename(aside)
    shutil.rmtree(aside)


def main(argv: Sequence[str]) -> int:
    """Seal one folder, unless a newer attempt holds the lease; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m clusterlm.node.seal")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--step", type=int, required=True)
    options = parser.parse_args(argv)
    try:
        refuse_if_fenced()
        print(seal(options.folder, options.step, int(os.environ.get("CLUSTERLM_ATTEMPT") or 0)))
    except Fenced as error:
        print(error, file=sys.stderr)
        return EXIT_FENCED
    except SealError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
