"""What a submit notes down before it uses what lies in a cluster's folder, and who takes it away.

A submit looks which contents are there, sends the others, and has folders made of them; its run
names these minutes later. In between only these notes tell a cleaning that they are wanted:

    objects/.asked/<digest>   contents that were asked for and were there; as old as the last time.
                              The contents themselves are not touched: a job that reads one of
                              their other names would take it for changed
    snapshots/<digest>        touched at every use, as is uploads/<digest>
    runs_dirs/<digest>        a folder that runs are made in: a profile may name another tomorrow
    software/.../USED         touched by every call of a submit

Notes and removals exclude each other by one lock, held for moments.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clusterlm.cluster.locks import alone
from clusterlm.cluster.remote.installations import USED
from clusterlm.errors import ClusterLMError
from clusterlm.node.files import write_atomically
from clusterlm.paths import PRIVATE_DIR

ASKED = ".asked"
RUNS_DIRS = "runs_dirs"
MARK_AGAIN_S = 1800.0
"""A mark of use that is younger is left as it is."""


@contextmanager
def undisturbed(folder: Path) -> Iterator[None]:
    """Nothing is removed meanwhile, or nothing is asked for."""
    with alone(folder / ".lock"):
        yield


def note_asked(folder: Path, contents: Iterable[str]) -> None:
    """Write down contents that are there and wanted; call it undisturbed."""
    wanted = sorted(contents)
    if not wanted:
        return
    text = json.dumps(wanted)
    notes = folder / "objects" / ASKED
    notes.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
    note = notes / hashlib.sha256(text.encode()).hexdigest()
    if note.is_symlink() or not note.exists():
        write_atomically(note, text)
    else:
        os.utime(note)


def asked_since(folder: Path, since: float) -> set[str]:
    """Contents that were asked for since then.

    Raises:
        ClusterLMError: a note is damaged.
    """
    found: set[str] = set()
    notes = folder / "objects" / ASKED
    if notes.is_symlink() or not notes.is_dir():
        return found
    # one that begins with a dot is being written; its lock is held, or its writer was killed
    for note in sorted(path for path in notes.iterdir() if not path.name.startswith(".")):
        try:
            if os.lstat(note).st_mtime >= since:
                found |= set(map(str, json.loads(note.read_text("utf-8"))))
        except FileNotFoundError:
            continue
        except (ValueError, TypeError) as error:
            raise ClusterLMError(f"{note} is damaged; remove it when no submit runs") from error
    return found


def note_use_of(tree: Path) -> None:
    """Mark a snapshot or upload as wanted now; call it undisturbed."""
    os.utime(tree)


def note_runs_dir(folder: Path, environ: dict[str, str] | None = None) -> None:
    """Write down where runs are made that use this folder."""
    text = (os.environ if environ is None else environ).get("CLUSTERLM_RUNS_DIR")
    if not text or not os.path.isabs(text):
        return
    note = folder / RUNS_DIRS / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
        write_atomically(note, f"{text}\n")


def note_software(prefix: str = sys.prefix) -> None:
    """Mark the installation that runs as one in use."""
    mark = Path(prefix) / USED
    # a Python that is no installation of ours, or a disk that is full
    with contextlib.suppress(OSError):
        if (mark.parent / "install.json").exists() and not _is_young(mark):
            mark.touch(mode=0o600)


def _is_young(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < MARK_AGAIN_S
    except OSError:
        return False
