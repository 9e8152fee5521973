"""doctor: what a cluster has and allows, and what that means for whoever trains there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterlm.cli import elsewhere
from clusterlm.cli.typed import AsJson, tell
from clusterlm.errors import ClusterLMError

if TYPE_CHECKING:
    from clusterlm.cluster.doctor.examine import Asked
    from clusterlm.cluster.doctor.finding import Save
    from clusterlm.cluster.host import Host
    from clusterlm.spec.probe import Probe
    from clusterlm.spec.profile import Profile


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("doctor")(doctor)


def doctor(
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", metavar="NAME", help="Where; default: what this machine is."),
    ] = None,
    no_job: Annotated[
        bool, typer.Option("--no-job", help="Only ask; send no job that looks at the nodes.")
    ] = False,
    nodes_test: Annotated[
        bool,
        typer.Option(
            "--nodes-test", help="Also let two nodes exchange gradients for half a minute."
        ),
    ] = False,
    wait: Annotated[
        float, typer.Option("--wait", min=5, metavar="SECONDS", help="For the job, at most.")
    ] = 180.0,
    partition: Annotated[
        str | None, typer.Option(metavar="NAME", help="To look at; default: the profile's.")
    ] = None,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="For the job.")] = None,
    qos: Annotated[str | None, typer.Option(metavar="NAME", help="For the job.")] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option("--folder", metavar="DIR", help="Also look at this one; may be repeated."),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Would its saves be quick enough?")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at a cluster, say what it means for a training, and remember it.

    A small job looks at one or two nodes: do they see the folders, can they save there, are their
    clocks right. Exit code 1: something must be mended before a training.
    """
    if cluster is not None and elsewhere.is_elsewhere(cluster):
        words = [*(["--no-job"] if no_job else []), *(["--nodes-test"] if nodes_test else [])]
        given = {"wait": wait, "partition": partition, "account": account, "qos": qos}
        words += [f"--{key}={value}" for key, value in given.items() if value is not None]
        # paths of the cluster: this machine knows nothing of them
        words += [f"--folder={path}" for path in folder or []]
        _there(cluster, words, run, as_json=as_json)
        return
    from clusterlm.cluster.doctor.examine import Asked
    from clusterlm.cluster.host import LocalHost

    name, profile = _who(cluster, LocalHost())
    save = _save_of(run) if run else None
    folders = tuple(path.expanduser().absolute() for path in folder or [])
    asked = Asked(profile, partition, account, qos, folders)
    probe = _look(name, asked, LocalHost(), None if no_job else wait, with_test=nodes_test)
    show(name, probe, save, as_json=as_json)


def _there(cluster: str, words: list[str], run: str | None, *, as_json: bool) -> None:
    """Let the clusterlm of the cluster look; what it found is kept here, too."""
    from clusterlm.spec.probe import Probe

    if run is not None:
        # its logs are over there, and so is the comparison
        there = ["--json"] if as_json else []
        named = ["doctor", "--cluster", cluster, "--run", run]
        raise typer.Exit(elsewhere.run_on(cluster, *named, *words, *there))
    found: list[str] = []

    def each(line: str) -> None:
        if line.startswith("{"):
            found.append(line)
        else:
            tell(line)

    done = elsewhere.remote_of(cluster).live(
        ["doctor", "--cluster", cluster, "--json", *words], each
    )
    if not found:
        raise typer.Exit(2 if done.code is None else done.code or 2)
    show(cluster, Probe.model_validate_json(found[-1]), None, as_json=as_json)


def show(name: str, probe: Probe, save: Save | None, *, as_json: bool) -> None:
    """Keep and print what was found; raises Exit(1) when something must be mended."""
    from clusterlm.cluster.doctor.finding import Severity
    from clusterlm.cluster.doctor.meaning import meaning
    from clusterlm.cluster.doctor.table import lines_of, verdict
    from clusterlm.spec.probe import write_probe

    file = write_probe(name, probe)
    findings = meaning(probe, save)
    if as_json:
        typer.echo(probe.model_dump_json())
    else:
        typer.echo("\n".join([*lines_of(probe, findings), "", verdict(probe, findings)]))
        tell(f"kept in {file}")
    if any(finding.severity is Severity.BAD for finding in findings):
        raise typer.Exit(1)


def _who(cluster: str | None, host: Host) -> tuple[str, Profile | None]:
    """The name under which a probe is kept, and the profile when there is one."""
    from clusterlm.cluster.places import use_folders
    from clusterlm.spec.clusters import RESERVED, find_profile, folders_of

    if cluster is None or cluster in RESERVED:
        return cluster or ("slurm" if host.has("sbatch") else "local"), None
    profile = find_profile(cluster)
    use_folders(folders_of(profile))
    return cluster, profile


def _look(name: str, asked: Asked, host: Host, wait: float | None, *, with_test: bool) -> Probe:
    from clusterlm.cluster.doctor.examine import examine, examine_machine
    from clusterlm.cluster.doctor.known_before import with_nodes_of
    from clusterlm.spec.probe import read_probe

    if name == "local":
        return examine_machine(host, asked)
    if not host.has("scontrol"):
        raise ClusterLMError(
            "this machine has no Slurm (no scontrol)\n"
            "  run it on a login node of the cluster (some sites: `module load slurm`);\n"
            "  clusterlm doctor --cluster local looks at this machine alone"
        )
    probe = examine(host, asked, tell)
    if wait is not None:
        from clusterlm.cluster.doctor.probe_job import Waiting, look_at_nodes

        probe = look_at_nodes(probe, asked, host, Waiting(wait, with_test, tell))
    return with_nodes_of(probe, read_probe(name))


def _save_of(run: str) -> Save:
    from clusterlm.cluster.doctor.last_save import last_save
    from clusterlm.cluster.status import find_run

    save = last_save(find_run(run))
    if save is None:
        raise ClusterLMError(f"{run} has not saved yet: how long it takes is not known")
    return save
