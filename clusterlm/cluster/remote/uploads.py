"""Paths of a job: which lie on the cluster already, which go with the code, which are uploaded.

    written          there on the cluster     here, in the project     here, elsewhere      nowhere
    /data/x, ~/x     as it is                 with the code            uploaded             error
    data/x, ../x     (not looked for)         with the code            uploaded             error

What is uploaded is named by its content, so it goes once, and the job gets its place there by
`--set`. Data that git does not track counts as data and not as code, wherever it lies.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterlm.cluster.remote.hashes import Hashes
from clusterlm.cluster.remote.snapshot import Snapshot, looks_secret
from clusterlm.cluster.remote.tree import Entry, Tree, is_inside
from clusterlm.errors import Problem, SpecError
from clusterlm.spec.local_paths import absolute, absolute_converter, path_keys, sources_of
from clusterlm.spec.place import Place, dotted
from clusterlm.spec.wording import printable, shown

_DATA_KEYS = {"path", "name", "continue_from", "wheelhouse", "file"}
"""Keys whose files are data (or a model, or an image) rather than code."""


@dataclass(frozen=True)
class NamedPath:
    """A path that stands in a job.

    Attributes:
        place: of the key.
        written: as the user wrote it, without the function of a converter.
        function: what follows the path: `:to_messages`, or nothing.
        here: the same, absolute, on this machine.
        is_data: and not code.
    """

    place: Place
    written: str
    here: str
    function: str = ""
    is_data: bool = False

    @property
    def is_absolute(self) -> bool:
        return self.written.startswith(("/", "~"))


@dataclass(frozen=True)
class Upload:
    """One path that goes by its content.

    Attributes:
        named: which.
        tree: its files, below NAME.
        sources: where they are here, by their path in the tree.
        tail: how the job names them below the folder of the upload: `NAME`, `NAME/*.jsonl`.
    """

    named: NamedPath
    tree: Tree
    sources: Mapping[str, Path]
    tail: str

    def override(self, root: str) -> str:
        """The `--set` that gives the job its place on the cluster."""
        return f"{dotted(self.named.place)}={root}/{self.tail}{self.named.function}"


def named_paths(values: Mapping[str, Any], folder: str) -> list[NamedPath]:
    """Every path of a job, from its values as they were written."""
    return list(_named_paths(dict(values), folder))


def _named_paths(values: dict[str, Any], folder: str) -> Iterator[NamedPath]:
    for holder, key, place, is_path in path_keys(values, folder):
        text = holder[key]
        is_mount = place[:2] == ("image", "mounts")
        # {stdlib} is that of the cluster's Python; a mount is a folder of its nodes
        if is_path and not is_mount and "{" not in text:
            yield NamedPath(place, text, absolute(text, folder), is_data=place[-1] in _DATA_KEYS)
    data, model = values.get("data"), values.get("model")
    for source, place in sources_of(data if isinstance(data, dict) else {}):
        yield from _of_python(source, "converter", place, folder)
    if isinstance(model, dict):
        yield from _of_python(model, "class", ("model",), folder)
        scratch = model.get("from_scratch")
        if isinstance(scratch, dict):
            yield from _of_python(scratch, "class", ("model", "from_scratch"), folder)


def _of_python(holder: dict[str, Any], key: str, place: Place, folder: str) -> Iterator[NamedPath]:
    text = holder.get(key)
    if not isinstance(text, str):
        return
    whole = absolute_converter(text, folder)
    path, _, name = whole.rpartition(":")
    # a function of an installed package stays as it is
    if path.endswith(".py"):
        written = text.rpartition(":")[0] or text
        yield NamedPath((*place, key), written, path, function=f":{name}")


def data_outside_of_git(named: list[NamedPath]) -> list[Path]:
    """What is not to be taken for code, should git not track it."""
    return [Path(_split(one.here)[0]) for one in named if one.is_data]


def uploads_of(
    named: list[NamedPath],
    on_cluster: Mapping[str, str],
    snapshot: Snapshot,
    hashes: Hashes,
    *,
    source: str,
    cluster: str,
) -> tuple[list[Upload], list[str], list[str]]:
    """Decide for each path where it comes from.

    Args:
        named: the paths.
        on_cluster: those written absolute that exist there, with their absolute form there.
        snapshot: the code that goes.
        hashes: what is known of large files.
        source: name of the YAML, for the error.
        cluster: name of the cluster, for the error and the notes.

    Returns:
        What is uploaded; `--set` for paths that lie elsewhere there; notes for the user.

    Raises:
        SpecError: paths that are neither here nor there, or cannot go, all of them.
    """
    uploads, overrides, notes, problems = [], [], [], []
    for one in named:
        where = dotted(one.place)
        if one.is_absolute and one.written in on_cluster:
            if one.written.startswith("~"):
                overrides.append(f"{where}={on_cluster[one.written]}{one.function}")
            if os.path.exists(one.here):
                notes.append(f"{where}: {one.written} is taken as it lies on {cluster}")
            continue
        files = _files_here(one.here)
        if not files:
            also = f", neither here nor on {cluster}" if one.is_absolute else " here"
            problems.append(Problem(where, f"there is no {shown(one.written)}{also}"))
        elif all(snapshot.holds(path) for path in files.values()):
            if one.is_absolute:
                overrides.append(_in_snapshot(one, snapshot))
        else:
            kept = {inner: path for inner, path in files.items() if not _is_secret(path)}
            if why := _why_not(one, kept):
                problems.append(Problem(where, why))
                continue
            if left_out := sorted(set(files) - set(kept)):
                notes.append(_left_out(where, left_out))
            uploads.append(_upload(one, kept, hashes))
    if problems:
        raise SpecError(source, problems)
    return uploads, overrides, notes


SNAPSHOT = "{snapshot}"
"""Stands in an override for the folder of the snapshot there, whose digest is not known yet."""


def _in_snapshot(one: NamedPath, snapshot: Snapshot) -> str:
    inner = Path(one.here).relative_to(snapshot.root).as_posix()
    return f"{dotted(one.place)}={SNAPSHOT}/{inner}{one.function}"


def _files_here(path: str) -> dict[str, Path]:
    """Files of a path, folder or glob on this machine, by their path below its fixed part."""
    fixed, tail = _split(path)
    found = [Path(path)] if not tail else map(Path, glob.iglob(path, recursive=True))
    files = {}
    for one in found:
        inner = _walk(one) if one.is_dir() else [one] if one.is_file() else []
        for file in inner:
            files[os.path.relpath(file, fixed)] = file
    return files


def _split(path: str) -> tuple[str, str]:
    """The part of a glob without wildcards, and the rest.

    # /a/b/*.txt: /a/b, *.txt
    """
    if not glob.has_magic(path) or os.path.exists(path):
        return path, ""
    parts = path.split("/")
    first = next(n for n, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:first]) or "/", "/".join(parts[first:])


def _walk(folder: Path) -> Iterator[Path]:
    """Its files, of folders that are links too, but not round and round through `latest -> .`."""
    for root, names, files in os.walk(folder, followlinks=True):
        here = os.path.realpath(root)
        names[:] = sorted(n for n in names if not _leads_back(os.path.join(root, n), here))
        yield from (Path(root, name) for name in sorted(files) if Path(root, name).is_file())


def _leads_back(path: str, folder: str) -> bool:
    if not os.path.islink(path):
        return False
    target = os.path.realpath(path)
    return folder == target or folder.startswith(f"{target.rstrip('/')}/")


_KEYS = {".ssh", ".gnupg", ".aws", ".kube", ".docker", ".config", ".netrc"}
"""Of a home folder: what lies there opens other doors."""


def _why_not(one: NamedPath, kept: Mapping[str, Path]) -> str:
    """Why files may not leave this machine although a YAML names them: it may be somebody else's.

    Args:
        one: what names them.
        kept: those that do not look like secrets.
    """
    if not kept:
        return (
            f"{shown(one.written)} looks like a key or a password, and would go to the cluster; "
            "a value for the job goes by `secrets`; data: give it another name"
        )
    name = _name_of(one)
    odd = [p for inner, p in kept.items() if not is_inside(_in_tree(name, inner))]
    return f"{shown(str(odd[0]))} cannot be uploaded: rename it" if odd else ""


def _left_out(where: str, names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    shown_names = ", ".join(map(printable, names[:5]))
    return f"{where}: left out, as they look like secrets: {shown_names}{more}"


def _is_secret(path: Path) -> bool:
    """By its name, and by where it really lies."""
    real = Path(os.path.realpath(path))
    try:
        top = real.relative_to(os.path.realpath(Path.home())).parts[:1]
    except ValueError:
        top = ()
    return looks_secret(path.name) or looks_secret(real.name) or not _KEYS.isdisjoint(top)


def _upload(one: NamedPath, files: Mapping[str, Path], hashes: Hashes) -> Upload:
    name, tail = _name_of(one), _split(one.here)[1]
    entries, sources = {}, {}
    for inner, path in files.items():
        in_tree = _in_tree(name, inner)
        status = path.stat()
        entries[in_tree] = Entry(hashes.of(path, status), status.st_size)
        sources[in_tree] = path
    return Upload(one, Tree(entries), sources, f"{name}/{tail}" if tail else name)


def _name_of(one: NamedPath) -> str:
    return os.path.basename(_split(one.here)[0]) or "root"


def _in_tree(name: str, inner: str) -> str:
    return name if inner == "." else f"{name}/{inner}"
