"""check, render: look at a job without submitting it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterlm.cli import elsewhere
from clusterlm.cli.plan import bytes_of_checkpoints, warn_if_it_cannot_fit
from clusterlm.cli.submit import (
    Cluster,
    JobFile,
    Overrides,
    load,
    refuse_bad_data,
    with_cluster,
)

if TYPE_CHECKING:
    from clusterlm.spec.job import Job


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("check")(check)
    app.command("render")(render)


def check(
    job: JobFile,
    overrides: Overrides = None,
    cluster: Cluster = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask the cluster for its partitions.")
    ] = False,
    starts: Annotated[
        bool, typer.Option("--starts", help="Show when it would start, by nodes and time.")
    ] = False,
) -> None:
    """Say every mistake in a YAML file at once; on a cluster, also when the job would start.

    Exit code 1: the cluster cannot run it as it is.
    """
    changes = with_cluster(overrides, cluster)
    if not offline and (there := elsewhere.cluster_of(job, changes)):
        options = ["--starts"] if starts else []
        raise typer.Exit(elsewhere.check(there, job, changes, options))
    loaded = load(job, overrides, None, cluster)
    refuse_bad_data(loaded)
    if not offline and (loaded.job.cluster != "local" or loaded.job.image):
        from clusterlm.cluster.host import LocalHost
        from clusterlm.cluster.preflight import refuse_impossible

        refuse_impossible(loaded.job, LocalHost(), job.name)
    warn_if_it_cannot_fit(loaded)
    is_fit = offline or loaded.job.cluster == "local" or _fits(loaded.job, with_table=starts)
    if not is_fit:
        typer.echo(f"{job}: well written, but the cluster cannot run it (!!)")
        raise typer.Exit(1)
    typer.echo(f"{job}: fine")


def _fits(job: Job, *, with_table: bool) -> bool:
    """Print what the cluster has to say to the job."""
    from clusterlm.cluster.doctor.check_job import check_job
    from clusterlm.cluster.host import LocalHost

    checked = check_job(job, LocalHost(), needed=bytes_of_checkpoints(job), with_table=with_table)
    typer.echo("\n".join(checked.lines))
    return checked.is_fit


def render(
    job: JobFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")],
    overrides: Overrides = None,
    cluster: Cluster = None,
) -> None:
    """Write the files of a submit into a folder, to read."""
    from clusterlm.cluster.submit import rendered
    from clusterlm.node.files import write_atomically

    loaded = load(job, overrides, None, cluster)
    files = rendered(loaded, loaded.job.name)
    output.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_atomically(output / name, text, mode=0o700 if name.endswith(".sh") else 0o600)
        typer.echo(str(output / name))
