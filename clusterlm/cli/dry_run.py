"""dry-run: the real phases, small and here."""

from __future__ import annotations

from typing import Annotated

import typer

from clusterlm.cli.typed import Cluster, JobFile, Overrides, load, tell


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("dry-run")(dry_run)


def dry_run(
    job: JobFile,
    overrides: Overrides = None,
    cluster: Cluster = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            metavar="all|none|0,1", help="GPUs to use; default: all if the job asks for any."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 2,
    nodes: Annotated[int, typer.Option(min=1, max=2, help="Containers, as nodes.")] = 1,
    no_build: Annotated[
        bool, typer.Option("--no-build", help="Refuse when the image is not there yet.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the run directory.")] = False,
) -> None:
    """Run the phases of a job here, in its image, on a sample of the data; then throw it away."""
    from clusterlm.cluster.dry_run import Wish
    from clusterlm.cluster.dry_run import dry_run as run_small
    from clusterlm.cluster.host import LocalHost

    loaded = load(job, overrides, None, cluster)
    wish = Wish(gpus=gpus, steps=steps, nodes=nodes, keep=keep)
    raise typer.Exit(run_small(loaded, wish, LocalHost(), may_build=not no_build, tell=tell))
