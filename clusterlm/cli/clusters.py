"""clusters add|ls|show|test|rm|edit: the clusters that a job may name; `clean` has its own file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clusterlm.cli.clean import clean
from clusterlm.cli.typed import AsJson, tell
from clusterlm.errors import ClusterLMError

if TYPE_CHECKING:
    from clusterlm.cluster.check_cluster import Verdict
    from clusterlm.spec.probe import Probe
    from clusterlm.spec.profile import Profile

DEFAULT_FOLDER = "~/clusterlm"

clusters = typer.Typer(
    help="Clusters that a job may name.", no_args_is_help=True, rich_markup_mode=None
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the cluster.")]
Wheelhouse = Annotated[
    Path | None,
    typer.Option("--wheelhouse", metavar="DIR", help="Wheels for a cluster without an index."),
]
Extras = Annotated[
    list[str] | None,
    typer.Option("--extra", metavar="NAME", help="Also clusterlm[NAME], such as train."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file, and `clean`."""
    clusters.command("clean")(clean)
    app.add_typer(clusters, name="clusters")


@clusters.command("add")
def add(
    name: Name,
    host: Annotated[
        str | None,
        typer.Option(metavar="[USER@]HOST", help="Login node; none: this machine is one."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Of sshd; default: as ssh_config says.")] = None,
    folder: Annotated[
        str | None,
        typer.Option(help=f"Folder there that every node sees; default: {DEFAULT_FOLDER}."),
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Default of jobs.")] = None,
    account: Annotated[str | None, typer.Option(help="Default of jobs.")] = None,
    qos: Annotated[str | None, typer.Option(help="Default of jobs.")] = None,
    runtime: Annotated[str | None, typer.Option(help="pyxis, enroot, apptainer or none.")] = None,
    fabric: Annotated[
        str | None, typer.Option(help="infiniband, roce, efa, slingshot or ethernet.")
    ] = None,
    python: Annotated[str | None, typer.Option(help="Python 3.10 or newer there.")] = None,
    setup: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help="Shell line before every command; may be repeated."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="Any other key; may be repeated."),
    ] = None,
    wheelhouse: Wheelhouse = None,
    extras: Extras = None,
    no_connect: Annotated[
        bool, typer.Option("--no-connect", help="Write the entry only, and connect later.")
    ] = False,
    doctor: Annotated[
        bool, typer.Option("--doctor", help="Then look at its Slurm, GPUs and folders, too.")
    ] = False,
) -> None:
    """Add a cluster to clusters.yaml, put clusterlm on it and look at it."""
    from clusterlm.spec.clusters import clusters_file, find_profile
    from clusterlm.spec.clusters_text import with_entry, write_clusters

    resources = {"partition": partition, "account": account, "qos": qos}
    fields = {
        **_address(host, port),
        "folder": _folder_there(folder, host),
        "python": python,
        "setup": setup,
        "runtime": runtime,
        "resources": {key: value for key, value in resources.items() if value is not None},
        "fabric": fabric,
    }
    fields = {key: value for key, value in fields.items() if value not in (None, [], {})}
    _apply(fields, overrides)
    _refuse_name(name)
    path = clusters_file()
    write_clusters(path, with_entry(_text_of(path), name, fields, str(path)))
    typer.echo(f"{name} is in {path}")
    if no_connect:
        typer.echo(f"next: clusterlm clusters test {name}")
        return
    _test(name, find_profile(name), wheelhouse, extras, doctor=doctor)


@clusters.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the clusters."""
    from clusterlm.spec.clusters import clusters_file, read_clusters
    from clusterlm.spec.probe import read_probe

    found = read_clusters()
    if as_json:
        import json

        rows = [_fields(name, profile, read_probe(name)) for name, profile in found.items()]
        typer.echo(json.dumps(rows))
        return
    if not found:
        typer.echo(
            f"no clusters in {clusters_file()}; add one: clusterlm clusters add NAME --host HOST"
        )
        return
    from clusterlm.cluster.cluster_words import listing

    typer.echo("\n".join(listing([(name, p, read_probe(name)) for name, p in found.items()])))


@clusters.command("show")
def show(name: Name, as_json: AsJson = False) -> None:
    """Show what a cluster gives to jobs, and what is known of it."""
    from clusterlm.spec.clusters import find_profile
    from clusterlm.spec.probe import read_probe

    profile, probe = find_profile(name), read_probe(name)
    if as_json:
        import json

        typer.echo(json.dumps(_fields(name, profile, probe)))
        return
    from clusterlm.cluster.cluster_words import description

    typer.echo("\n".join(description(name, profile, probe)))


@clusters.command("test")
def try_out(name: Name, wheelhouse: Wheelhouse = None, extras: Extras = None) -> None:
    """Connect to a cluster, put this clusterlm there if need be, ask Slurm for its version."""
    from clusterlm.spec.clusters import find_profile

    _test(name, find_profile(name), wheelhouse, extras)


@clusters.command("rm")
def rm(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Also with runs that live there.")] = False,
) -> None:
    """Take a cluster out of clusters.yaml; nothing is removed on the cluster."""
    from clusterlm.cluster.check_cluster import runs_on
    from clusterlm.spec.clusters import clusters_file, find_profile
    from clusterlm.spec.clusters_text import without_entry, write_clusters
    from clusterlm.spec.probe import forget_probe

    profile = find_profile(name)
    if (runs := runs_on(name)) and not force:
        listed = ", ".join(runs[:5]) + (" ..." if len(runs) > 5 else "")
        raise ClusterLMError(
            f"{len(runs)} of your runs lie on {name}: {listed}\n"
            "  without it status and logs no longer find them; --force takes it out all the same"
        )
    path = clusters_file()
    write_clusters(path, without_entry(_text_of(path), name, str(path)))
    forget_probe(name)
    typer.echo(f"{name} is out of {path}")
    if profile.host:
        typer.echo(f"its folder stays there: {profile.host}:{profile.folder}")


@clusters.command("edit")
def edit(name: Annotated[str | None, typer.Argument(hidden=True)] = None) -> None:
    """Open clusters.yaml in $EDITOR; what is written is checked before it counts."""
    from clusterlm.spec.clusters import clusters_file, parse_clusters
    from clusterlm.spec.clusters_text import HEAD, write_clusters

    # with a name or without one: the file is one
    path = clusters_file()
    before = text = _text_of(path) or f"{HEAD}\nclusters:\n"
    while True:
        text = _edited(text)
        try:
            parse_clusters(text, str(path))
            break
        except ClusterLMError as error:
            typer.echo(f"clusterlm: {error}", err=True)
            if not typer.confirm("edit again? (no: nothing is changed)", default=True):
                raise typer.Exit(2) from None
    if text == before:
        typer.echo("nothing changed")
        return
    write_clusters(path, text)
    typer.echo(f"written: {path}")


def _edited(text: str) -> str:
    import os
    import shlex
    import subprocess
    import tempfile

    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="clusterlm-") as folder:
        file = Path(folder) / "clusters.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            code = subprocess.run([*shlex.split(command), str(file)], check=False).returncode
        except (OSError, ValueError) as error:
            raise ClusterLMError(f"{command}: {error}; set EDITOR to your editor") from error
        if code:
            raise ClusterLMError(f"{command} ended with exit {code}; nothing is changed")
        return file.read_text(encoding="utf-8")


def _test(
    name: str,
    profile: Profile,
    wheelhouse: Path | None,
    extras: list[str] | None,
    *,
    doctor: bool = False,
) -> None:
    from clusterlm.cluster.check_cluster import check_cluster

    def say(verdict: Verdict) -> None:
        typer.echo("\n".join(verdict.lines()))

    fine = check_cluster(name, profile, wheelhouse, extras, say=say, tell=tell)
    if not fine:
        typer.echo(f"when that is mended: clusterlm clusters test {name}")
        raise typer.Exit(1)
    if doctor:
        from clusterlm.cli.doctor import doctor as look

        look(name)
    else:
        typer.echo(f"next: clusterlm doctor --cluster {name}   Slurm, GPUs, folders; a minute")
    typer.echo(f"then: clusterlm submit job.yaml --cluster {name}")


def _address(host: str | None, port: int | None) -> dict[str, Any]:
    user, at, bare = (host or "").rpartition("@")
    return {"host": bare or None, "user": user if at else None, "port": port}


def _folder_there(folder: str | None, host: str | None) -> str | None:
    """`~` of the cluster: the shell here has written its own home in place of it."""
    if host is None:
        return folder
    home = str(Path.home())
    if folder is not None and (folder == home or folder.startswith(f"{home}/")):
        meant = "~" + folder[len(home) :]
        typer.echo(f"note: {folder} is in your home here; taken as {meant} there", err=True)
        return meant
    return folder or DEFAULT_FOLDER


def _apply(fields: dict[str, Any], overrides: list[str] | None) -> None:
    from clusterlm.errors import SpecError
    from clusterlm.spec.overrides import apply_overrides

    _, problems = apply_overrides(fields, overrides or [])
    if problems:
        raise SpecError("clusters add", problems)


def _refuse_name(name: str) -> None:
    from clusterlm.spec.clusters import name_problem

    if problem := name_problem(name):
        raise ClusterLMError(problem)


def _text_of(path: Path) -> str:
    from clusterlm.spec.local_folders import refuse_open_file
    from clusterlm.spec.text_file import read_text

    if not path.exists():
        return ""
    refuse_open_file(path)
    return read_text(path, wanted="give the path of a clusters.yaml")


def _fields(name: str, profile: Profile, probe: Probe | None) -> dict[str, Any]:
    return {
        "name": name,
        "profile": profile.model_dump(mode="json", exclude_none=True, exclude_defaults=True),
        "probe": probe.model_dump(mode="json", exclude_none=True) if probe else None,
    }
