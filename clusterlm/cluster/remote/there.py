"""What runs on the login node beside the commands: it takes files in and puts folders together.

    python -m clusterlm.cluster.remote.there VERB FOLDER < request.json > answer.json

    look       which paths exist here
    missing    which contents are not in FOLDER/objects yet
    take       contents one after the other: a line `SHA256 BYTES`, then the bytes; no answer before
               the end. What arrived whole stays, whatever happens to the rest
    assemble   a folder out of contents: FOLDER/snapshots/DIGEST or FOLDER/uploads/DIGEST
    keep       small texts of one submit: FOLDER/submits/KEY/NAME
    listing    files of a run, for `fetch`

Nothing is written outside FOLDER; what is there under a digest was compared with it.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from clusterlm.cluster.remote.asked import (
    note_asked,
    note_runs_dir,
    note_software,
    note_use_of,
    undisturbed,
)
from clusterlm.cluster.remote.tree import CHUNK, Entry, Tree, above, is_inside, sha256_of
from clusterlm.errors import ClusterLMError
from clusterlm.node.files import write_atomically
from clusterlm.paths import PRIVATE_DIR

KINDS = ("snapshots", "uploads")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_READ_ONLY, _PROGRAM = 0o400, 0o500


def blob_path(folder: Path, sha256: str) -> Path:
    """Where a content lies."""
    return folder / "objects" / sha256[:2] / sha256


def look(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Which of some paths, or globs, exist here, and as what; `~` is the home here."""
    found = {}
    for text in request["paths"]:
        path = os.path.expanduser(text)
        is_there = os.path.exists(path) or any(True for _ in glob.iglob(path, recursive=True))
        if is_there:
            found[text] = path
    return {"found": found}


def missing(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Contents that are not here whole, and the room that there is for them."""
    wanted: dict[str, int] = request["blobs"]
    with undisturbed(folder):
        lacking = [sha for sha, size in wanted.items() if _size(blob_path(folder, sha)) != size]
        note_asked(folder, wanted.keys() - set(lacking))
    for sha in lacking:
        blob_path(folder, sha).parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
    return {"missing": lacking, "free_bytes": shutil.disk_usage(folder).free}


def take(folder: Path, source: BinaryIO) -> dict[str, Any]:
    """Store what comes, content by content.

    Raises:
        ClusterLMError: a content is not what its digest says.
    """
    taken = 0
    while header := source.readline(128):
        words = header.decode("ascii", errors="replace").split()
        if len(words) != 2 or not re.fullmatch(r"[0-9a-f]{64}", words[0]):
            raise ClusterLMError("what came is no content with its digest before it")
        if not _take_one(folder, words[0], int(words[1]), source):
            break
        taken += 1
    return {"taken": taken}


def _take_one(folder: Path, sha256: str, size: int, source: BinaryIO) -> bool:
    target = blob_path(folder, sha256)
    target.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
    aside = target.with_name(f".{sha256}.{uuid.uuid4().hex[:12]}")
    whole, left = hashlib.sha256(), size
    try:
        with _new_file(aside) as file:
            while left:
                piece = source.read(min(left, CHUNK))
                if not piece:
                    # the connection has gone: this one is sent again
                    return False
                whole.update(piece)
                file.write(piece)
                left -= len(piece)
            file.flush()
            os.fsync(file.fileno())
        if whole.hexdigest() != sha256:
            raise ClusterLMError(f"a content arrived damaged (sha256 {sha256[:12]}...)")
        aside.chmod(_READ_ONLY)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    return True


def assemble(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Make a folder out of contents that are here; one that is there already is compared.

    A snapshot holds code: its files are copies, and all are hashed at every use, so that nothing
    runs from a tree that somebody has changed. An upload holds data: its files are hard links to
    the contents, which were hashed when they came, and only sizes are looked at again.

    Raises:
        ClusterLMError: a content is missing or damaged; nothing is left behind.
    """
    tree, kind = Tree.from_json(request["tree"]), request["kind"]
    if kind not in KINDS or tree.digest != request["digest"]:
        raise ClusterLMError("the list of files is not the one that was announced")
    target = folder / kind / tree.digest
    target.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
    place = _copy if kind == "snapshots" else _link
    note_runs_dir(folder)
    with undisturbed(folder):
        if is_there := target.is_dir():
            note_use_of(target)
    if is_there:
        return {"path": str(target), "repaired": _repair(folder, target, tree, place)}
    aside = target.with_name(f".{tree.digest[:16]}.{uuid.uuid4().hex[:12]}")
    try:
        _fill(folder, aside, tree, place)
        try:
            aside.rename(target)
        except OSError:
            # another submit was first; what it has made has the same digest
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return {"path": str(target), "repaired": []}


_Place = Callable[[Path, Entry, Path], None]


def _fill(folder: Path, root: Path, tree: Tree, place: _Place) -> None:
    root.mkdir(mode=PRIVATE_DIR)
    for path, entry in tree.files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
        place(blob_path(folder, entry.sha256), entry, root / path)
    # links last: no file is written through one
    for path, target in tree.links.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
        (root / path).symlink_to(target)


def _copy(blob: Path, entry: Entry, target: Path) -> None:
    """A copy that nobody edits by mistake; hashed while it is made."""
    whole = hashlib.sha256()
    with blob.open("rb") as source, _new_file(target) as file:
        while piece := source.read(CHUNK):
            whole.update(piece)
            file.write(piece)
    if whole.hexdigest() != entry.sha256:
        target.unlink()
        blob.unlink(missing_ok=True)
        raise ClusterLMError(f"{blob} was damaged and is removed; do the same again")
    target.chmod(_PROGRAM if entry.is_program else _READ_ONLY)


def _link(blob: Path, entry: Entry, target: Path) -> None:
    if _size(blob) != entry.size:
        raise ClusterLMError(f"{blob} is not there whole; do the same again")
    try:
        blob.chmod(_READ_ONLY)
        os.link(blob, target)
    except OSError:
        # a file system without hard links, or too many to one file
        _copy(blob, entry, target)


def _repair(folder: Path, root: Path, tree: Tree, place: _Place) -> list[str]:
    """Put back what is not as it was; gives the paths of it. Jobs may be reading there."""
    repaired = []
    for folder_of_tree in sorted({f for p in (*tree.files, *tree.links) for f in above(p)}):
        if (root / folder_of_tree).is_symlink():
            # nothing is compared or written through it
            (root / folder_of_tree).unlink()
    for path, entry in tree.files.items():
        if _is_as_sent(root / path, entry, by_hash=place is _copy):
            continue
        (root / path).parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
        aside = (root / path).with_name(f".{uuid.uuid4().hex[:12]}")
        place(blob_path(folder, entry.sha256), entry, aside)
        os.replace(aside, root / path)
        repaired.append(path)
    for path, target in tree.links.items():
        if (root / path).is_symlink() and os.readlink(root / path) == target:
            continue
        (root / path).parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
        aside = (root / path).with_name(f".{uuid.uuid4().hex[:12]}")
        aside.symlink_to(target)
        os.replace(aside, root / path)
        repaired.append(path)
    return repaired


def _is_as_sent(path: Path, entry: Entry, *, by_hash: bool) -> bool:
    if path.is_symlink() or _size(path) != entry.size:
        return False
    return not by_hash or sha256_of(path) == entry.sha256


def keep(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Write small texts of one submit."""
    key = request["key"]
    if not _WORD.fullmatch(key):
        raise ClusterLMError("a submit's key is a word")
    root = folder / "submits" / key
    root.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
    for name, text in request["texts"].items():
        if not _WORD.fullmatch(name):
            raise ClusterLMError("a text's name is a word")
        write_atomically(root / name, text)
    return {"path": str(root)}


def listing(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Sizes of the files below one folder of a run; what is being written aside is left out."""
    root = Path(request["root"])
    files = {
        path.relative_to(root).as_posix(): path.stat().st_size
        for part in request["parts"]
        for path in sorted((root / part).rglob("*"))
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(root).parts)
    }
    return {"files": {path: size for path, size in files.items() if is_inside(path)}}


def _new_file(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


VERBS = {
    "look": look,
    "missing": missing,
    "assemble": assemble,
    "keep": keep,
    "listing": listing,
}


def main(verb: str, folder: Path) -> int:
    """Do one thing; the answer goes to stdout, a refusal to stderr with exit code 2."""
    note_software()
    try:
        if verb == "take":
            answer = take(folder, sys.stdin.buffer)
        else:
            answer = VERBS[verb](folder, json.load(sys.stdin))
    except (ClusterLMError, OSError) as error:
        print(f"clusterlm: {error}", file=sys.stderr)
        return 2
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]).expanduser()))
