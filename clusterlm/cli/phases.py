"""preprocess, train: what the phases call on a node. Users seldom type them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from clusterlm.errors import ClusterLMError

RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of the run.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("preprocess", hidden=True)(preprocess)
    app.command("train", hidden=True)(train)


def preprocess(
    run_dir: RunDir,
    task: Annotated[
        str | None,
        typer.Option(metavar="K/N", help="Only tokenize, the share of task K of N, from 0."),
    ] = None,
) -> None:
    """Prepare the data of a run; called by preprocess.sh on one node, or on one of many."""
    from clusterlm.data.preprocess import run_phase, run_task

    with _named_errors():
        if task is None:
            run_phase(run_dir)
        else:
            number, _, tasks = task.partition("/")
            run_task(run_dir, int(number), int(tasks))


def train(run_dir: RunDir) -> None:
    """Train; called by torchrun.sh as every rank."""
    from clusterlm.train.loop import run_training

    with _named_errors():
        code = run_training(run_dir)
    raise typer.Exit(code)


@contextmanager
def _named_errors() -> Iterator[None]:
    """Put the kind of an error before its words, on one line: `judge` reads it off the log."""
    try:
        yield
    except ClusterLMError as error:
        words = " ".join(line.strip() for line in str(error).splitlines())
        print(f"{type(error).__name__}: {words}", file=sys.stderr, flush=True)
        raise typer.Exit(error.exit_code) from None
