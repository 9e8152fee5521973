"""check, render: look at a job without submitting it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clusterlm.cli import elsewhere
from clusterlm.cli.typed import Cluster, JobFile, Overrides, load, tell, with_cluster
from clusterlm.errors import SpecError


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
    question: Annotated[bool, typer.Option("--question", hidden=True)] = False,
) -> None:
    """Say every mistake in a YAML file at once; on a cluster, also when the job would start.

    Exit code 2: there are mistakes; 1: there are none, and the cluster cannot run it as it is.
    """
    changes = with_cluster(overrides, cluster)
    if question:
        _answer(job)
        return
    if not offline and (there := elsewhere.cluster_of(job, changes)):
        from clusterlm.cli import check_elsewhere

        raise typer.Exit(check_elsewhere.check(there, job, changes, with_table=starts))
    from clusterlm.cli.mistakes import find_mistakes, refuse, verdict
    from clusterlm.cluster.job_question import JobQuestion
    from clusterlm.spec.load import read_job_text

    text = read_job_text(job)
    asked = JobQuestion(
        text=text,
        overrides=changes,
        asks_cluster=not offline,
        with_secrets=not offline,
        with_table=starts,
    )
    try:
        answer = find_mistakes(asked, job)
    except SpecError:
        tell("nothing else was looked at, and no cluster was asked: it cannot be read as YAML")
        raise
    for note in answer.notes:
        tell(f"note: {note}")
    if answer.lines:
        typer.echo("\n".join(answer.lines))
    refuse(answer, job.name)
    raise typer.Exit(verdict(job, answer.is_fit))


def _answer(job: Path) -> None:
    """To a laptop: the question on stdin, the answer as one line of JSON."""
    import sys

    from clusterlm.cli.mistakes import find_mistakes
    from clusterlm.cluster.job_question import JobQuestion

    asked = JobQuestion.model_validate_json(sys.stdin.read())
    typer.echo(find_mistakes(asked, job).model_dump_json())


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
