"""report: a run as one page of HTML with its curves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clusterlm.cli import elsewhere
from clusterlm.cli.read import RunName
from clusterlm.errors import RunError


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("report")(report)


def report(
    run: RunName,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The page; default: RUN.html here.")
    ] = None,
) -> None:
    """Write the curves of a run as one page of HTML: loss, evaluation, speed, MFU."""
    from clusterlm.cluster.curves import pictures
    from clusterlm.cluster.outcome import read_outcome
    from clusterlm.cluster.status import find_run
    from clusterlm.data.looks.page import heading, page, paragraph
    from clusterlm.node.files import read_jsonl

    if there := elsewhere.find(run):
        raise typer.Exit(elsewhere.report(there, out))
    paths = find_run(run)
    drawn = list(pictures(read_jsonl(paths.metrics)[0]))
    if not drawn:
        raise RunError(f"{paths.name} has logged nothing so far: {paths.metrics}")
    body = [paragraph(" ".join(line.split())) for line in read_outcome(paths).lines()]
    for title, picture in drawn:
        body += [heading(title), picture]
    file = out or Path(f"{paths.name}.html")
    file.write_text(page(paths.name, body), encoding="utf-8")
    typer.echo(f"{file}: {len(drawn)} pictures")
