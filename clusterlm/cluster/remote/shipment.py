"""What a submit takes to a cluster: code, data that lies here, and where the job finds both there.

plan_shipment   looks, here and there; sends nothing
summary         one line of how much would go
preview         lines that say what goes and how large it is
send            contents first, then the folders made of them; a cut or Ctrl-C leaves no folder
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterlm.cluster.remote.forward import Remote
from clusterlm.cluster.remote.git import CodeState, code_state
from clusterlm.cluster.remote.hashes import Hashes
from clusterlm.cluster.remote.objects import missing, send_contents, sources_of_tree
from clusterlm.cluster.remote.snapshot import LIMIT, Snapshot, spoken_size, take_snapshot
from clusterlm.cluster.remote.tree import Tree
from clusterlm.cluster.remote.uploads import (
    SNAPSHOT,
    NamedPath,
    Upload,
    data_outside_of_git,
    named_paths,
    uploads_of,
)
from clusterlm.errors import SpecError
from clusterlm.paths import cache_dir
from clusterlm.spec.load import load_text, values_of
from clusterlm.spec.place import dotted
from clusterlm.spec.wording import printable, times

_LOOKS_AT_FILES = (
    *("path", "name", "converter", "class", "deepspeed", "chat_template", "continue_from"),
    *("requirements", "wheelhouse", "file", "command[0]", "rank_pattern", "alpha_pattern"),
)
"""Keys whose mistakes only the cluster can tell: what they name may lie there."""


@dataclass(frozen=True)
class Shipment:
    """What goes.

    Attributes:
        yaml: the job, here.
        snapshot: the code.
        uploads: data by its content.
        overrides: `--set` of paths; `{snapshot}` stands for the code's folder there.
        notes: for the user.
        code: commit and changes, with the diff; None without git.
        lacking: digests of what the cluster has not yet.
    """

    yaml: Path
    snapshot: Snapshot
    uploads: list[Upload]
    overrides: list[str]
    notes: list[str]
    code: tuple[CodeState, bytes] | None
    lacking: frozenset[str]

    @property
    def bytes_of_data(self) -> int:
        """Of uploads, that have to go."""
        trees = [upload.tree for upload in self.uploads]
        return sum(_lacking_bytes(tree, self.lacking) for tree in trees)


@dataclass(frozen=True)
class Arrived:
    """Where things are there, when all has been sent."""

    yaml: str
    overrides: list[str]
    folder: str
    """Where the command was typed, in the project there; a script's relative paths begin there."""


def refuse_mistakes(text: str, yaml: Path, overrides: Sequence[str]) -> None:
    """Find here what needs no cluster: nothing is sent for a job with a wrong key.

    Raises:
        SpecError: every mistake but those that speak of files.
    """
    try:
        load_text(text, yaml, overrides)
    except SpecError as error:
        certain = [p for p in error.problems if not is_of_a_file(p.where)]
        if certain:
            raise SpecError(error.source, certain, error.notes) from None


def is_of_a_file(where: str) -> bool:
    """Whether a mistake may be one only where the file is not: here, or on the cluster."""
    # `--set data.sources[0].path`; the run's own name is no file
    place = where.removeprefix("--set ")
    return place != "name" and place.rpartition(".")[2] in _LOOKS_AT_FILES


@dataclass(frozen=True)
class Paths:
    """The paths of a job.

    Attributes:
        named: all of them.
        on_cluster: those written absolute that exist there, with their absolute form there.
    """

    named: list[NamedPath]
    on_cluster: dict[str, str]

    @property
    def of_laptop(self) -> list[str]:
        """Keys whose paths do not lie there: they go with a submit, or are nowhere."""
        return [dotted(one.place) for one in self.named if one.written not in self.on_cluster]


def find_paths(remote: Remote, yaml: Path, text: str, overrides: Sequence[str]) -> Paths:
    """Look which paths of a job lie on the cluster already."""
    values = values_of(text, printable(yaml.name), overrides)
    named = named_paths(values, str(real_path(yaml).parent))
    absolute = sorted({one.written for one in named if one.is_absolute})
    return Paths(named, remote.there("look", {"paths": absolute})["found"] if absolute else {})


def real_path(yaml: Path) -> Path:
    """The YAML in its real folder, as git names it."""
    return yaml.absolute().parent.resolve() / yaml.name


def plan_shipment(
    remote: Remote,
    yaml: Path,
    text: str,
    overrides: Sequence[str],
    *,
    limit: int = LIMIT,
    paths: Paths | None = None,
) -> Shipment:
    """Look at everything that a job needs, here and on the cluster.

    Args:
        remote: the cluster.
        yaml: the job.
        text: its content.
        overrides: `--set`.
        limit: bytes that the project may have.
        paths: of the job, where they were looked for already.

    Raises:
        SpecError: it names paths that are neither here nor there.
        ClusterLMError: the project cannot go; see `take_snapshot`.
    """
    paths = paths or find_paths(remote, yaml, text, overrides)
    named, on_cluster, yaml = paths.named, paths.on_cluster, real_path(yaml)
    hashes = Hashes(cache_dir().parent / "hashes.json")
    taken_there = {one.here for one in named if one.written in on_cluster}
    data = [path for path in data_outside_of_git(named) if str(path) not in taken_there]
    snapshot = take_snapshot(yaml, limit=limit, leave_out=data, hashes=hashes)
    uploads, places, notes = uploads_of(
        named, on_cluster, snapshot, hashes, source=printable(yaml.name), cluster=remote.name
    )
    hashes.save()
    blobs = dict(snapshot.tree.blobs)
    for upload in uploads:
        blobs |= upload.tree.blobs
    return Shipment(
        yaml=yaml,
        snapshot=snapshot,
        uploads=uploads,
        overrides=places,
        notes=notes,
        code=code_state(yaml.parent, snapshot.tree.digest),
        lacking=frozenset(missing(remote, blobs)),
    )


def summary(shipment: Shipment, cluster: str) -> list[str]:
    """How much a submit would send, and what it would leave out."""
    trees = [shipment.snapshot.tree, *(upload.tree for upload in shipment.uploads)]
    files, size = sum(len(tree.files) for tree in trees), sum(tree.size for tree in trees)
    whole = f"{times(files, 'file')}, {spoken_size(size)}"
    blobs = {sha: size for tree in trees for sha, size in tree.blobs.items()}
    to_go = [size for sha, size in blobs.items() if sha in shipment.lacking]
    if not to_go:
        line = f"a submit would send nothing to {cluster}: {whole} are there already"
    elif len(to_go) == len(blobs):
        line = f"a submit would send {whole} to {cluster}"
    else:
        part = f"{times(len(to_go), 'file')}, {spoken_size(sum(to_go))}"
        line = f"a submit would send {part} to {cluster}, of {whole} in all"
    return [line, *_notes(shipment)]


def preview(shipment: Shipment, cluster: str) -> list[str]:
    """What goes, how large it is, and how much of it is not there yet."""
    snapshot = shipment.snapshot
    lines = [f"to {cluster}:"]
    tree = snapshot.tree
    state = shipment.code[0] if shipment.code else None
    of_commit = ""
    if state:
        changed = " + uncommitted changes" if state.dirty else ""
        of_commit = f", commit {(state.commit or 'none')[:12]}{changed}"
    lines.append(f"  code  {snapshot.root}{of_commit}")
    lines.append(f"        {_amount(tree, shipment.lacking)}")
    for upload in shipment.uploads:
        lines.append(f"  data  {dotted(upload.named.place)}: {upload.named.written}")
        lines.append(f"        {_amount(upload.tree, shipment.lacking)}")
    return [*lines, *(f"  {note}" for note in _notes(shipment))]


def _notes(shipment: Shipment) -> list[str]:
    lines = [f"note: {note}" for note in shipment.notes]
    snapshot = shipment.snapshot
    if snapshot.left_out:
        shown = ", ".join(map(printable, snapshot.left_out[:5]))
        more = f" and {len(snapshot.left_out) - 5} more" if len(snapshot.left_out) > 5 else ""
        lines.append(
            f"note: left out, as they look like secrets: {shown}{more}; a value for the job"
            " goes by `secrets`"
        )
    return lines


def listing(shipment: Shipment) -> list[str]:
    """Every file of the code, for --dry-run; the largest are named once more."""
    tree = shipment.snapshot.tree
    rows = [f"{entry.size:>12}  {path}" for path, entry in sorted(tree.files.items())]
    rows += [f"{'link':>12}  {path} -> {to}" for path, to in sorted(tree.links.items())]
    largest = [f"{spoken_size(size)} {path}" for path, size in shipment.snapshot.largest()]
    return [*rows, f"the largest: {', '.join(largest)}"]


def send(shipment: Shipment, remote: Remote, *, tell: Callable[[str], None]) -> Arrived:
    """Bring all of it there.

    Raises:
        ConnectionLost: what arrived stays; the next try goes on from there.
        ClusterLMError: a file has changed in between, or there is no room.
    """
    code = shipment.snapshot
    sources = sources_of_tree(code.tree, {p: code.root / p for p in code.tree.files})
    blobs = dict(code.tree.blobs)
    for upload in shipment.uploads:
        sources |= sources_of_tree(upload.tree, upload.sources)
        blobs |= upload.tree.blobs
    if shipment.lacking:
        send_contents(remote, blobs, sources, tell=tell)
    folder = _assemble(remote, "snapshots", code.tree, tell)
    overrides = [text.replace(f"={SNAPSHOT}/", f"={folder}/", 1) for text in shipment.overrides]
    for upload in shipment.uploads:
        overrides.append(upload.override(_assemble(remote, "uploads", upload.tree, tell)))
    inner = shipment.yaml.relative_to(code.root)
    typed_in = _typed_in(code, inner)
    return Arrived(f"{folder}/{inner.as_posix()}", overrides, f"{folder}/{typed_in}".rstrip("/."))


def _typed_in(code: Snapshot, yaml: Path) -> str:
    """The folder of the command as seen from the project's, if it went; else that of the YAML."""
    here = Path.cwd().resolve()
    if here.is_relative_to(code.root):
        inner = here.relative_to(code.root).as_posix()
        if inner == "." or any(path.startswith(f"{inner}/") for path in code.tree.files):
            return inner
    return yaml.parent.as_posix()


def _assemble(remote: Remote, kind: str, tree: Tree, tell: Callable[[str], None]) -> str:
    request = {"kind": kind, "tree": tree.to_json(), "digest": tree.digest}
    answer = remote.there("assemble", request)
    for path in map(str, answer["repaired"][:5]):
        tell(f"{remote.name}: {printable(path)} had been changed there; it is as it is here again")
    return str(answer["path"])


def _amount(tree: Tree, lacking: frozenset[str]) -> str:
    files = f"{len(tree.files)} file{'' if len(tree.files) == 1 else 's'}"
    to_go = _lacking_bytes(tree, lacking)
    new = f"{spoken_size(to_go)} to send" if to_go else "all there already"
    return f"{files}, {spoken_size(tree.size)}, {new}"


def _lacking_bytes(tree: Tree, lacking: frozenset[str]) -> int:
    return sum(size for sha, size in tree.blobs.items() if sha in lacking)
