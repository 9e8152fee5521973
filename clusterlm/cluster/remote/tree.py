"""A folder as a list of contents: what goes to a cluster, and what has to stand there afterwards.

    files   {"src/model.py": (sha256, bytes, may be run)}      links   {"latest": "runs/7"}

Its digest names it, so the same folder is sent once. Both sides check every name: nothing in a tree
leaves the folder that it is written to.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusterlm.errors import ClusterLMError

CHUNK = 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
# control characters would end a line of a list or obey a terminal
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class BadTree(ClusterLMError):
    """A list that would write outside its folder, or that is none."""


@dataclass(frozen=True)
class Entry:
    """One file."""

    sha256: str
    size: int
    is_program: bool = False


@dataclass(frozen=True)
class Tree:
    """Files and links by their path below the folder, parts joined by `/`."""

    files: Mapping[str, Entry]
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files.values())

    @property
    def blobs(self) -> dict[str, int]:
        """Sizes by sha256: each content once."""
        return {entry.sha256: entry.size for entry in self.files.values()}

    @property
    def digest(self) -> str:
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As it goes over the line."""
        files = {p: [e.sha256, e.size, int(e.is_program)] for p, e in self.files.items()}
        return {"files": files, "links": dict(self.links)}

    @classmethod
    def from_json(cls, value: Any) -> Tree:
        """The tree that the other side has sent.

        Raises:
            BadTree: it is none, or would leave its folder.
        """
        try:
            files = {
                str(path): Entry(str(sha256), int(size), bool(is_program))
                for path, (sha256, size, is_program) in value["files"].items()
            }
            links = {str(path): str(target) for path, target in value["links"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadTree("what came is no list of files") from error
        tree = cls(files, links)
        tree.check()
        return tree

    def check(self) -> None:
        """Refuse what cannot be written below one folder.

        Raises:
            BadTree: names the first path that is not accepted.
        """
        for path in (*self.files, *self.links):
            if not is_inside(path):
                raise BadTree(f"{path!r} is no path below a folder")
        for entry in self.files.values():
            if not _SHA256.fullmatch(entry.sha256) or entry.size < 0:
                raise BadTree(f"{entry.sha256!r} is no sha256")
        for path, target in self.links.items():
            if target.startswith("/") or not is_inside(_resolved(path, target), or_root=True):
                raise BadTree(f"{path!r} is a link that leaves the folder")
        leaves = {*self.files, *self.links}
        for path in leaves:
            # a/b below a link, or a file, `a`
            if any(folder in leaves for folder in above(path)):
                raise BadTree(f"{path!r} lies below a file or link")


def is_inside(path: str, *, or_root: bool = False) -> bool:
    """Whether a relative path stays below its folder, written in the one way that we write it."""
    if path == "." and or_root:
        return True
    if not path or path.startswith("/") or _CONTROL.search(path):
        return False
    return posixpath.normpath(path) == path and path.split("/")[0] not in ("..", ".")


def sha256_of(path: Path, size: int | None = None) -> str:
    """Of a file's content, or of its first bytes."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK if size is None else min(CHUNK, size)):
            whole.update(chunk)
            size = None if size is None else size - len(chunk)
    return whole.hexdigest()


def link_target(root: str, path: str, target: str) -> str | None:
    """A link's target, written relative to the link; None when it leaves the root.

    # root /p, link a/b -> /p/c: ../c
    """
    here = os.path.dirname(os.path.join(root, path))
    whole = os.path.normpath(os.path.join(here, target))
    if whole != root and not whole.startswith(root.rstrip("/") + "/"):
        return None
    return os.path.relpath(whole, here)


def _resolved(path: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


def above(path: str) -> Iterable[str]:
    """The folders that it lies in, the innermost first."""
    while path := posixpath.dirname(path):
        yield path
