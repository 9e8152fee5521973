"""submit, resume, cancel: the commands that change something."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterlm.cli import elsewhere
from clusterlm.cli.typed import (
    AsJson,
    Cluster,
    JobFile,
    Overrides,
    TypedIn,
    files_of_submit,
    load,
    print_files,
    refuse_bad_data,
    tell,
    with_cluster,
)
from clusterlm.errors import RunError

if TYPE_CHECKING:
    from clusterlm.cluster.submit import Submission
    from clusterlm.spec.load import LoadedJob

RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run.")]
SnapshotLimit = Annotated[
    str | None,
    typer.Option(
        "--snapshot-limit", metavar="SIZE", help="Largest project that goes to a cluster: 200MB."
    ),
]
# from a laptop: neither an argv nor an environment may hold them
SecretsStdin = Annotated[bool, typer.Option("--secrets-stdin", hidden=True)]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("submit")(submit)
    app.command("resume")(resume)
    app.command("cancel")(cancel)


def submit(
    job: JobFile,
    overrides: Overrides = None,
    cluster: Cluster = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; default: the job's.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be submitted, and submit nothing.")
    ] = False,
    no_build: Annotated[
        bool, typer.Option("--no-build", help="Refuse when the image is not there yet.")
    ] = False,
    secrets_stdin: SecretsStdin = False,
    as_json: AsJson = False,
    limit: SnapshotLimit = None,
    # for programs: a call that was cut off is asked for again with the same key
    key: Annotated[str | None, typer.Option(hidden=True)] = None,
    folder: TypedIn = None,
) -> None:
    """Prepare image and data where needed, and train.

    Returns with the name of the run and its job ids: at once, or when the image has been built.
    """
    if folder:
        os.chdir(folder)
    changes = with_cluster(overrides, cluster)
    there = elsewhere.cluster_of(job, changes)
    if there and dry_run:
        from clusterlm.cli import check_elsewhere

        raise typer.Exit(check_elsewhere.dry_run(there, job, changes, name, limit))
    if there:
        code = elsewhere.submit(
            there,
            job,
            changes,
            name,
            options=["--no-build"] if no_build else [],
            limit=limit,
            watch=watch,
            as_json=as_json,
        )
        raise typer.Exit(code)
    if secrets_stdin:
        take_secrets()
    loaded = load(job, overrides, name, cluster)
    if dry_run:
        refuse_bad_data(loaded)
        print_files(files_of_submit(loaded))
        return
    submission = _submit(loaded, may_build=not no_build, key=key)
    _print_submission(submission, as_json)
    if watch:
        raise typer.Exit(_watch(submission))


def _submit(loaded: LoadedJob, *, may_build: bool, key: str | None) -> Submission:
    from clusterlm.cli.plan import warn_if_it_cannot_fit
    from clusterlm.cluster.host import LocalHost
    from clusterlm.cluster.keyed_submit import clean_key, submit_once
    from clusterlm.cluster.submit import submit as send

    own = clean_key(key) if key else ""

    def submit() -> Submission:
        refuse_bad_data(loaded)
        warn_if_it_cannot_fit(loaded)
        host, name = LocalHost(), loaded.job.name
        return send(loaded, name, host, key=own, may_build=may_build, tell=tell)

    return submit_once(own, loaded.job, submit, tell) if own else submit()


def resume(
    run: RunName,
    job: Annotated[
        Path | None,
        typer.Option("--job", metavar="JOB", help="A changed YAML in place of the submitted one."),
    ] = None,
    overrides: Overrides = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    secrets_stdin: SecretsStdin = False,
    as_json: AsJson = False,
    folder: TypedIn = None,
) -> None:
    """Start an ended run again from its newest checkpoint."""
    if folder:
        os.chdir(folder)
    from clusterlm.cluster.host import LocalHost
    from clusterlm.cluster.status import find_run
    from clusterlm.cluster.submit import resume as send

    if secrets_stdin:
        take_secrets()
    if overrides and job is None:
        raise RunError("--set changes a YAML: name it too, with --job JOB")
    if there := elsewhere.find(run):
        raise typer.Exit(elsewhere.resume(there, job, overrides, watch=watch, as_json=as_json))
    paths = find_run(run)
    loaded = load(job, overrides, paths.name) if job else None
    submission = send(paths, LocalHost(), loaded, tell=tell)
    _print_submission(submission, as_json)
    if watch:
        raise typer.Exit(_watch(submission))


def cancel(
    run: RunName,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for a checkpoint.")] = False,
) -> None:
    """Ask a run to save, then end its whole chain of jobs."""
    from clusterlm.cluster.cancel import cancel as take_away
    from clusterlm.cluster.host import LocalHost
    from clusterlm.cluster.status import find_run, supervisor_lives

    if there := elsewhere.find(run):
        raise typer.Exit(elsewhere.pass_on(there, "cancel", run, *(["--now"] if now else [])))
    paths = find_run(run)
    done = take_away(
        paths, LocalHost(), now=now, is_running=lambda: supervisor_lives(paths), tell=typer.echo
    )
    if done.was_over:
        typer.echo(f"{run} had ended already; nothing to cancel")
        return
    for other in done.kept_preprocess_for:
        typer.echo(f"the data job stays: run {other} waits for the same data")
    go_on = "" if done.was_done else f"; go on with: clusterlm resume {run}"
    typer.echo(f"{run} {done.words}{go_on}")


def take_secrets() -> None:
    """Read the values of secrets from stdin, a JSON object."""
    import sys

    from clusterlm.cluster.secret_values import take_given
    from clusterlm.node.private import MAX_BYTES

    take_given(sys.stdin.read(MAX_BYTES + 1))


def _print_submission(done: Submission, as_json: bool) -> None:
    if as_json:
        import json

        typer.echo(json.dumps(done.fields()))
        return
    typer.echo(f"run {done.run.name}")
    for phase, job_id in done.job_ids.items():
        tasks = f", {done.tasks} tasks" if phase == "encode" else ""
        typer.echo(f"  {phase:<11} job {job_id}{tasks}")
    if done.shares_with:
        typer.echo(
            f"  preprocess  shared with run {done.shares_with}, which prepares the same data"
        )
    elif done.fingerprint and done.cache_hit:
        typer.echo(f"  preprocess  not needed: the data is there ({done.fingerprint[:12]})")
    typer.echo(f"  folder      {done.run.root}")
    typer.echo(f"look: clusterlm status {done.run.name}   clusterlm logs {done.run.name} -f")


def _watch(done: Submission) -> int:
    from clusterlm.cluster.watch import watch_run

    return watch_run(done.run)
