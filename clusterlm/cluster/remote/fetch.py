"""Brings the model, a checkpoint or the logs of a run from its cluster to this machine.

Files are filled beside the folder that was asked for, which appears when all are whole; what a cut
leaves there is used by the next try. Small ones come in one stream (`bundle.py`), a large one by
itself, for it is gone on with in the middle. No name that the cluster says leads out of the folder.
"""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clusterlm.cluster.remote.bundle import Receiver
from clusterlm.cluster.remote.forward import Remote
from clusterlm.cluster.remote.progress import now_and_then
from clusterlm.cluster.remote.snapshot import spoken_size
from clusterlm.cluster.remote.tree import is_inside
from clusterlm.cluster.ssh.lines import last_lines
from clusterlm.errors import RunError, SshError, SshRefused
from clusterlm.node.files import read_json
from clusterlm.node.manifest import MANIFEST

LARGE = 4 * 2**20
"""From here on a file comes by itself."""
TRIES = 6
"""Connections in a row that break without a file gained."""
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class Part:
    """Which part of a run.

    Attributes:
        folders: below the run's folder there.
        name: of the folder here.
        is_flat: what lies in the folder is put into ours, without a folder between.
    """

    folders: tuple[str, ...]
    name: str
    is_flat: bool = False


MODEL = Part(("model",), "model", is_flat=True)
LOGS = Part(("attempts", "preprocess", "encode", "submitit"), "logs")


def checkpoint(step: int) -> Part:
    """The checkpoint of that step."""
    name = f"checkpoint-{step}"
    return Part((f"checkpoints/{name}",), name, is_flat=True)


def fetch(
    remote: Remote,
    run: str,
    run_dir: str,
    part: Part,
    target: Path,
    *,
    tell: Callable[[str], None],
) -> Path:
    """Copy a part of a run to `target`; files that are there already whole are left alone.

    Raises:
        RunError: the run has no such part, or `target` is in the way.
        ConnectionLost: the next try goes on from what has come.
    """
    from clusterlm.cluster.ssh.transfer import fetch_file

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunError(f"{target} is there already; name another folder: -o DIR")
    sizes = _sizes(remote, run_dir, part)
    if not sizes:
        raise RunError(f"{run} has no {part.name} on {remote.name} so far ({run_dir})")
    files = "1 file" if len(sizes) == 1 else f"{len(sizes)} files"
    tell(f"{files}, {spoken_size(sum(sizes.values()))}, from {remote.name}:{run_dir}")
    aside = target.with_name(f"{target.name}.part")
    lacking = {p: n for p, n in sizes.items() if not _is_here(aside / _below(p, part), n)}
    small = {path: size for path, size in lacking.items() if size < LARGE}
    if len(small) > 1:
        _fetch_small(remote, run_dir, small, lambda path: aside / _below(path, part), tell)
    for path in sorted(lacking.keys() - (small.keys() if len(small) > 1 else set())):
        inner = _below(path, part)
        fetch_file(
            remote.transport,
            f"{run_dir}/{path}",
            aside / inner,
            python=remote.installed.python,
            progress=now_and_then(inner, tell),
            has_answered=True,
        )
    aside.mkdir(parents=True, exist_ok=True)
    _compare(aside)
    if target.is_dir():
        target.rmdir()
    # fetched into a project, it is no part of it: the next submit would send it back
    (aside / ".gitignore").write_text("*\n")
    os.replace(aside, target)
    return target


def _is_here(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def _fetch_small(
    remote: Remote,
    run_dir: str,
    sizes: Mapping[str, int],
    place: Callable[[str], Path],
    tell: Callable[[str], None],
) -> None:
    """All in one stream; after a cut, those that are missing."""
    argv = [remote.installed.python, "-I", "-m", "clusterlm.cluster.remote.bundle", run_dir]
    doing = f"the fetching of {len(sizes)} files"
    total, wanted, tries = sum(sizes.values()), list(sizes.items()), 0
    progress, have = now_and_then(f"{len(sizes)} files", tell), 0

    def came(count: int) -> None:
        nonlocal have
        have += count
        progress(min(have, total), total)

    while wanted:
        with Receiver(wanted, place, came=came) as receiver:
            try:
                source = io.BytesIO(json.dumps(wanted).encode())
                done = remote.transport.pipe(
                    argv, source=source, sink=receiver.as_file(), doing=doing
                )
            except SshRefused:
                raise
            except SshError as error:
                # a connection that brings something is worth another
                tries = 0 if receiver.num_done else tries + 1
                if tries >= TRIES:
                    raise
                tell(f"{error}; going on with what is missing")
                time.sleep(min(2.0**tries, LONGEST_PAUSE_S))
            else:
                if done.code or receiver.left:
                    words = last_lines(done.err.encode())
                    raise SshRefused(f"{remote.name}: {doing} ended early:\n{words}".rstrip())
            wanted = receiver.left


def _sizes(remote: Remote, run_dir: str, part: Part) -> dict[str, int]:
    answer = remote.there("listing", {"root": run_dir, "parts": list(part.folders)})
    found = {
        path: size for path, size in answer["files"].items() if type(size) is int and size >= 0
    }
    if part is LOGS:
        found = {p: s for p, s in found.items() if re.search(r"\.(log|out|err|json|jsonl)$", p)}
    # isprintable: no half of a surrogate pair, nothing that turns the text round
    return {p: s for p, s in found.items() if is_inside(p) and p.isprintable()}


def _below(path: str, part: Part) -> str:
    return path.removeprefix(f"{part.folders[0]}/") if part.is_flat else path


def _compare(folder: Path) -> None:
    """What a checkpoint's own list says of its files."""
    listed = (read_json(folder / MANIFEST) or {}).get("files", {})
    if not isinstance(listed, dict):
        raise RunError(f"{MANIFEST} of the checkpoint is damaged, so nothing vouches for its files")
    for path, entry in listed.items():
        file = folder / path
        size = entry.get("bytes") if isinstance(entry, dict) else None
        if is_inside(path) and (not file.is_file() or file.stat().st_size != size):
            raise RunError(f"{path} of the checkpoint has not arrived whole; fetch it again")
