"""check, render: look at a job without submitting it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clusterlm.cli import elsewhere
from clusterlm.cli.plan import warn_if_it_cannot_fit
from clusterlm.cli.submit import (
    Cluster,
    JobFile,
    Overrides,
    load,
    refuse_bad_data,
    with_cluster,
)


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
) -> None:
    """Say every mistake in a YAML file at once."""
    changes = with_cluster(overrides, cluster)
    if not offline and (there := elsewhere.cluster_of(job, changes)):
        raise typer.Exit(elsewhere.check(there, job, changes, []))
    loaded = load(job, overrides, None, cluster)
    refuse_bad_data(loaded)
    if not offline and (loaded.job.cluster != "local" or loaded.job.image):
        from clusterlm.cluster.host import LocalHost
        from clusterlm.cluster.preflight import refuse_impossible

        refuse_impossible(loaded.job, LocalHost(), job.name)
    warn_if_it_cannot_fit(loaded)
    typer.echo(f"{job}: fine")


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
