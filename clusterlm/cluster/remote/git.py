"""What git says of a work tree: its files, its commit, what was changed since. Changes nothing."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clusterlm.errors import ClusterLMError
from clusterlm.node.files import read_json

CODE_STATE = "CLUSTERLM_CODE_STATE"
DIFF_KEPT = 2**20
"""A larger diff is known by its digest alone."""
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class CodeState:
    """What a run was made from, for lock.json.

    Attributes:
        root: of the project, on the machine of the user.
        commit: None before the first one.
        dirty: something tracked was changed, or there are untracked files.
        diff_sha256: of `git diff HEAD`; None when nothing tracked was changed.
        diff_bytes: its length; it is kept up to DIFF_KEPT.
        untracked: number of files that git neither tracks nor ignores.
        snapshot: digest of what was sent to a cluster.
    """

    root: str
    commit: str | None
    branch: str | None
    dirty: bool
    diff_sha256: str | None
    diff_bytes: int
    untracked: int
    snapshot: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As lock.json holds it."""
        return asdict(self)


def git_root(folder: Path) -> Path | None:
    """The top of the work tree that a folder lies in.

    Raises:
        ClusterLMError: there is one, and git will not read it.
    """
    folder = folder.resolve()
    if not any((above / ".git").exists() for above in (folder, *folder.parents)):
        return None
    out = _git(folder, "rev-parse", "--show-toplevel").decode(errors="surrogateescape")
    return Path(out.rstrip("\n")).resolve()


def tracked(root: Path) -> list[str]:
    """Files that git tracks, those of submodules too, by their path below the root."""
    return [p for path in _listed(root, "--cached") for p in _with_submodule(root, path, tracked)]


def untracked(root: Path) -> list[str]:
    """Files that git neither tracks nor ignores."""
    own = _listed(root, "--others", "--exclude-standard")
    inner = [
        p
        for path in _listed(root, "--cached")
        if (root / path / ".git").exists()
        for p in _with_submodule(root, path, untracked)
    ]
    # a repository inside that is no submodule is listed as `folder/`
    nested = [
        p
        for path in own
        if path.endswith("/")
        for p in _with_submodule(root, path.rstrip("/"), _all_files)
    ]
    return [p for p in own if not p.endswith("/")] + inner + nested


def code_state(folder: Path, snapshot: str | None = None) -> tuple[CodeState, bytes] | None:
    """Commit and changes of the project that a folder lies in, and the diff; None without git."""
    try:
        root = git_root(folder)
        if root is None:
            return None
        commit = _git(root, "rev-parse", "--verify", "-q", "HEAD", may_fail=True).decode().strip()
        branch = _git(root, "rev-parse", "--abbrev-ref", "HEAD", may_fail=True).decode().strip()
        diff = (
            _git(root, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv", "--no-color")
            if commit
            else b""
        )
        new = len(untracked(root))
    except (ClusterLMError, OSError):
        # a run does not fail for want of a note
        return None
    state = CodeState(
        root=str(root),
        commit=commit or None,
        branch=branch if branch not in ("", "HEAD") else None,
        dirty=bool(diff) or new > 0 or not commit,
        diff_sha256=hashlib.sha256(diff).hexdigest() if diff else None,
        diff_bytes=len(diff),
        untracked=new,
        snapshot=snapshot,
    )
    return state, diff if len(diff) <= DIFF_KEPT else b""


def code_of_run(yaml: Path) -> tuple[dict[str, Any] | None, str]:
    """What a new run's lock.json says of its code, and the diff.

    A job that came from another machine brings it along (`$CLUSTERLM_CODE_STATE`): what lies here
    is a copy without its history.
    """
    brought = os.environ.get(CODE_STATE)
    if brought:
        try:
            diff = Path(brought).with_name("code.diff").read_text(encoding="utf-8")
        except OSError:
            diff = ""
        return read_json(Path(brought)), diff
    found = code_state(yaml.parent)
    if found is None:
        return None, ""
    return found[0].to_json(), found[1].decode(errors="replace")


def _all_files(root: Path) -> list[str]:
    return tracked(root) + untracked(root)


def _with_submodule(root: Path, path: str, files_of: Any) -> list[str]:
    inner = root / path
    if inner.is_symlink() or not inner.is_dir():
        return [path]
    if not (inner / ".git").exists():
        # a submodule that was never fetched
        return []
    return [f"{path}/{name}" for name in files_of(inner)]


def _listed(root: Path, *options: str) -> list[str]:
    out = _git(root, "ls-files", "-z", *options).decode(errors="surrogateescape")
    return [path for path in out.split("\0") if path]


def _git(folder: Path, *words: str, may_fail: bool = False) -> bytes:
    # no lock is taken, no pager or hook started: the user may be at work in there
    environ = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        environ.pop(name, None)
    argv = ["git", "-c", "core.fsmonitor=false", "-c", "core.quotepath=false", "-C", str(folder)]
    try:
        done = subprocess.run(
            [*argv, *words],
            capture_output=True,
            env=environ,
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise ClusterLMError(
            f"{folder} lies in a git work tree, and there is no git here to say what belongs to it"
        ) from None
    except subprocess.TimeoutExpired:
        raise ClusterLMError(f"git gave no answer in {_TIMEOUT_S:.0f} s in {folder}") from None
    if done.returncode and not may_fail:
        words_of_git = done.stderr.decode(errors="replace").strip().splitlines()
        raise ClusterLMError(f"git cannot read {folder}: {' '.join(words_of_git[:3])}")
    return done.stdout if not done.returncode else b""
