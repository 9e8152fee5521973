"""preprocess, train: what the phases call on a node. Users seldom type them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of the run.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("preprocess", hidden=True)(preprocess)
    app.command("train", hidden=True)(train)


def preprocess(run_dir: RunDir) -> None:
    """Prepare the data of a run; called by preprocess.sh on one node."""
    from clusterlm.data.preprocess import run_phase

    run_phase(run_dir)


def train(run_dir: RunDir) -> None:
    """Train; called by torchrun.sh as every rank."""
    from clusterlm.train.loop import run_training

    raise typer.Exit(run_training(run_dir))
