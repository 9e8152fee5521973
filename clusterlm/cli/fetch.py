"""fetch: a run's model, checkpoint or logs from its cluster to here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clusterlm.cli import elsewhere
from clusterlm.cli.read import RunName
from clusterlm.errors import ClusterLMError, RunError


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("fetch")(fetch)


def fetch(
    run: RunName,
    checkpoint: Annotated[
        int | None, typer.Option(min=0, metavar="STEP", help="The checkpoint of this step.")
    ] = None,
    logs: Annotated[bool, typer.Option("--logs", help="The logs of all attempts.")] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder; default: RUN/model here.")
    ] = None,
) -> None:
    """Bring the model of a run on a cluster to this machine; or a checkpoint, or its logs.

    Broken off, it goes on where it was when it is called again.
    """
    if logs and checkpoint is not None:
        raise ClusterLMError("--logs and --checkpoint: one of them")
    there = elsewhere.find(run)
    if there is None:
        from clusterlm.cluster.status import find_run

        raise RunError(f"{run} is a run of this machine: {find_run(run).root}")
    part = "logs" if logs else "model" if checkpoint is None else "checkpoint"
    raise typer.Exit(elsewhere.fetch(there, part, checkpoint, out))
