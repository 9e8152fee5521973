"""The user's project as it is at this moment: what a submit takes along.

The project is the git work tree that the YAML lies in: tracked files as they are now (changed ones
too), and untracked ones that git does not ignore. Without git it is the YAML's folder, without what
tools leave behind. Never taken: what looks like a key or a password and is not tracked.

Source of the trouble that this avoids: a launcher that took the last commit, and silently ran old
code (https://github.com/NVIDIA-NeMo/Run/issues/40).
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from clusterlm.cluster.remote.git import git_root, tracked, untracked
from clusterlm.cluster.remote.hashes import Hashes
from clusterlm.cluster.remote.tree import Entry, Tree, above, is_inside, link_target
from clusterlm.errors import ClusterLMError
from clusterlm.spec.wording import printable

LIMIT = 200 * 10**6
LARGEST_SHOWN = 5
_JUNK = {
    *("__pycache__", ".git", ".hg", ".svn", "node_modules", ".ipynb_checkpoints", ".DS_Store"),
    *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".tox", ".nox", ".idea"),
}
_SECRET = re.compile(
    r"\.env(\.(?!example$|sample$|template$|dist$).*)?|.*\.env|secrets?\.(json|ya?ml|toml|txt|env)"
    r"|.*\.(pem|key|p12|pfx|kdbx|keytab|jks)|id_(rsa|dsa|ecdsa|ed25519)(_sk)?"
    r"|\.netrc|_netrc|\.pypirc|\.npmrc|\.git-credentials|\.htpasswd|credentials(\.json|\.ya?ml)?"
    r"|(hf_|huggingface_|wandb_)?token(\.txt)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Snapshot:
    """What goes.

    Attributes:
        root: of the project, here.
        tree: its files.
        is_git: whether git chose them.
        left_out: files that look like secrets, by their path below the root.
    """

    root: Path
    tree: Tree
    is_git: bool
    left_out: tuple[str, ...] = ()

    def holds(self, path: Path) -> bool:
        """Whether a file or folder of this machine is in it."""
        try:
            inner = path.relative_to(self.root).as_posix()
        except ValueError:
            return False
        return inner == "." or inner in self._places

    @cached_property
    def _places(self) -> frozenset[str]:
        """Every file, link and folder."""
        names = (*self.tree.files, *self.tree.links)
        return frozenset({*names, *(folder for name in names for folder in above(name))})

    def largest(self) -> list[tuple[str, int]]:
        """The largest files."""
        sizes = [(path, entry.size) for path, entry in self.tree.files.items()]
        return sorted(sizes, key=lambda one: -one[1])[:LARGEST_SHOWN]


def take_snapshot(
    yaml: Path, *, limit: int = LIMIT, leave_out: Collection[Path] = (), hashes: Hashes
) -> Snapshot:
    """List and hash the project that a YAML lies in.

    Args:
        yaml: the job; it goes whatever git ignores.
        limit: bytes that the project may have.
        leave_out: files and folders that travel as data; one that git tracks goes all the same.
        hashes: what is known of large files.

    Raises:
        ClusterLMError: it is too large, is the whole home folder, or holds links out of it.
    """
    yaml = yaml.absolute()
    root = git_root(yaml.parent)
    is_git = root is not None
    root = root or yaml.parent.resolve()
    _refuse_home(root)
    known = set(tracked(root)) if is_git else set()
    others = _without_junk(root, untracked(root)) if is_git else _walk(root)
    fresh = [p for p in others if p not in known and not _is_below(root / p, leave_out)]
    secret = {path for path in fresh if looks_secret(path.rpartition("/")[2])}
    chosen = set(_not_behind_links(root, known | (set(fresh) - secret)))
    own = os.path.relpath(yaml.parent.resolve() / yaml.name, root)
    chosen.add(own)
    tree = _tree_of(root, sorted(chosen), limit, hashes, is_git=is_git)
    return Snapshot(root, tree, is_git, tuple(sorted(secret - {own})))


def looks_secret(name: str) -> bool:
    """Whether a file of that name is a key or a password."""
    return _SECRET.fullmatch(name) is not None


def _refuse_home(root: Path) -> None:
    if root in (Path.home().resolve(), Path("/")):
        raise ClusterLMError(
            f"the job.yaml lies in {root}, and all of it would go to the cluster\n"
            "  put it into a folder of its own, with the code that it needs"
        )


def _not_behind_links(root: Path, paths: Collection[str]) -> Iterator[str]:
    """Without what git tracks in a folder that is a link now, which may lead to any folder."""
    is_real = {"": True}
    for path in paths:
        for folder in reversed(list(above(path))):
            if folder not in is_real:
                outer = posixpath.dirname(folder)
                is_real[folder] = is_real[outer] and not (root / folder).is_symlink()
        if is_real[posixpath.dirname(path)]:
            yield path


def _is_below(path: Path, folders: Collection[Path]) -> bool:
    return any(folder in (path, *path.parents) for folder in folders)


def _without_junk(root: Path, paths: list[str]) -> Iterator[str]:
    """Untracked files that somebody wrote: caches and virtual environments are made by tools."""
    is_environment: dict[str, bool] = {}
    for path in paths:
        folders = path.split("/")[:-1]
        above = ["/".join(folders[: n + 1]) for n in range(len(folders))]
        for folder in above:
            if folder not in is_environment:
                is_environment[folder] = (root / folder / "pyvenv.cfg").exists()
        is_junk = path.endswith(".pyc") or not _JUNK.isdisjoint(path.split("/"))
        if not is_junk and not any(is_environment[folder] for folder in above):
            yield path


def _walk(root: Path) -> Iterator[str]:
    """Without git: every file but what tools make anew."""
    for folder, names, files in os.walk(root):
        here = Path(folder)
        names[:] = sorted(
            n for n in names if n not in _JUNK and not (here / n / "pyvenv.cfg").exists()
        )
        linked = [n for n in names if (here / n).is_symlink()]
        for name in (*files, *linked):
            if name not in _JUNK and not name.endswith(".pyc"):
                yield (here / name).relative_to(root).as_posix()


def _tree_of(root: Path, paths: list[str], limit: int, hashes: Hashes, *, is_git: bool) -> Tree:
    """Hash what is there; a tracked file that was removed does not go."""
    found: list[tuple[str, os.stat_result]] = []
    links: dict[str, str] = {}
    bad: list[str] = []
    for path in paths:
        try:
            status = os.lstat(root / path)
        except OSError:
            continue
        if not is_inside(path) or not path.isprintable():
            bad.append(f"{printable(path)}: a name that cannot be shown")
        elif stat.S_ISLNK(status.st_mode):
            target = link_target(str(root), path, os.readlink(root / path))
            if target is None:
                bad.append(f"{path}: a link to {os.readlink(root / path)}, outside of the project")
            else:
                links[path] = target
        elif stat.S_ISREG(status.st_mode):
            found.append((path, status))
    if bad:
        ignore = "name it in .gitignore" if is_git else "put it elsewhere"
        raise ClusterLMError(
            f"the project {root} cannot be taken along\n  "
            + "\n  ".join(bad[:LARGEST_SHOWN])
            + f"\n  {ignore}; data that the job names goes by itself"
        )
    _refuse_large(root, found, limit, is_git=is_git)
    files = {
        path: Entry(hashes.of(root / path, status), status.st_size, bool(status.st_mode & 0o100))
        for path, status in found
    }
    return Tree(files, links)


def _refuse_large(
    root: Path, found: list[tuple[str, os.stat_result]], limit: int, *, is_git: bool
) -> None:
    total = sum(status.st_size for _, status in found)
    if total <= limit:
        return
    largest = sorted(found, key=lambda one: -one[1].st_size)[:LARGEST_SHOWN]
    rows = [f"    {spoken_size(status.st_size):>9}  {path}" for path, status in largest]
    where = ".gitignore" if is_git else "another folder (or run `git init` and name it there)"
    raise ClusterLMError(
        f"the project {root} has {len(found)} files, {spoken_size(total)}; "
        f"at most {spoken_size(limit)} go to a cluster with a job. The largest:\n"
        + "\n".join(rows)
        + f"\n  what the job does not need belongs into {where}"
        "\n  or allow more:  --snapshot-limit 2GB"
    )


def spoken_size(size: float) -> str:
    """`1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
