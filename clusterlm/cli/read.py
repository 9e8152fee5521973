"""status, logs, why: the commands that look and change nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterlm.cli import elsewhere
from clusterlm.cli.typed import AsJson

if TYPE_CHECKING:
    from clusterlm.cluster.logs import Wanted
    from clusterlm.cluster.run_status import RunStatus
    from clusterlm.cluster.status import StatusReader
    from clusterlm.paths import Phase, RunPaths

ENDED_SHOWN = 20
ADVICE_FOR = 3
"""So few runs in the table: what to do is written under it."""

RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run, or its folder.")]
RunNames = Annotated[
    list[str] | None, typer.Argument(metavar="[RUN]...", help="Names of runs; default: all.")
]


class PhaseName(Enum):
    """A phase, as typed."""

    encode = "encode"
    preprocess = "preprocess"
    train = "train"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("status")(status)
    app.command("logs")(logs)
    app.command("why")(why)


def status(
    runs: RunNames = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow until all have ended.")] = False,
    show_all: Annotated[
        bool, typer.Option("--all", help=f"Also more than {ENDED_SHOWN} runs that have ended.")
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="All runs there, also those sent from other machines."),
    ] = None,
) -> None:
    """Show all runs in one table."""
    with _quiet_pipe():
        if cluster and (runs or watch):
            raise typer.BadParameter(
                "shows all its runs once: without RUN and --watch", param_hint="--cluster"
            )
        if watch:
            raise typer.Exit(_watch(runs))
        found, notes = _read_all_on(cluster) if cluster else _read(runs)
        if as_json:
            _print_json([one.to_json() for one in found])
            return
        shown = found if show_all or runs else _without_old(found)
        if cluster and not found:
            typer.echo(
                f"no runs on {cluster}; start one: clusterlm submit JOB.yaml --cluster {cluster}"
            )
        else:
            _print_table(shown)
        if len(shown) < len(found):
            typer.echo(f"and {len(found) - len(shown)} more that have ended: --all")
        for note in notes:
            typer.echo(f"note: {note}", err=True)


def logs(
    run: RunName,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until it ends.")] = False,
    phase: Annotated[PhaseName | None, typer.Option(help="Only this phase.")] = None,
    rank: Annotated[int | None, typer.Option(min=0, help="Only this rank.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="Only this attempt.")] = None,
    task: Annotated[int | None, typer.Option(min=0, help="Only this task of `encode`.")] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Only tracebacks and errors.")] = False,
    lines: Annotated[int, typer.Option("-n", "--tail", min=0, help="Last lines shown.")] = 50,
    as_json: Annotated[
        bool, typer.Option("--json", help="With -f: objects with new lines and their place.")
    ] = False,
    place: Annotated[
        str | None, typer.Option("--from", hidden=True, help="Go on from such a place.")
    ] = None,
) -> None:
    """Print the logs of all attempts, nodes and ranks as one text."""
    from clusterlm.cluster.logs import Wanted
    from clusterlm.cluster.status import find_run

    if there := elsewhere.find(run):
        options = _log_options(phase, rank, attempt, task, errors)
        raise typer.Exit(elsewhere.logs(there, options, lines, follow=follow))
    paths = find_run(run)
    chosen: Phase | None = phase.value if phase else "encode" if task is not None else None
    wanted = Wanted(chosen, rank, attempt, errors, task)
    with _quiet_pipe():
        if follow and as_json:
            _follow_as_json(paths, wanted, lines, place)
        elif follow:
            _follow(paths, wanted, lines)
        else:
            _print_newest(paths, wanted, lines)


def why(run: RunName, as_json: AsJson = False) -> None:
    """Say why a run is as it is, and what to do about it."""
    from clusterlm.cluster.status import StatusReader, find_run
    from clusterlm.cluster.why import explain
    from clusterlm.errors import RunError

    if there := elsewhere.find(run):
        options = ["--json"] if as_json else []
        raise typer.Exit(elsewhere.pass_on(there, "why", run, *options))
    paths = find_run(run)
    reader = StatusReader(paths.root.parent)
    found = reader.read([paths.name])
    if not found:
        raise RunError("; ".join(reader.notes))
    explanation = explain(paths, found[0])
    with _quiet_pipe():
        if as_json:
            _print_json(explanation.to_json())
        else:
            typer.echo("\n".join(explanation.lines()))


def _read(runs: list[str] | None) -> tuple[list[RunStatus], list[str]]:
    from clusterlm.cluster.status import StatusReader, find_run

    if not runs:
        reader = _reader_of_all()
        own = reader.read()
        others, notes = elsewhere.statuses()
        return _newest_first(own + others), reader.notes + notes
    there = [one for one in map(elsewhere.find, runs) if one]
    found, notes = elsewhere.statuses(there) if there else ([], [])
    known = {one.run for one in there}
    by_folder: dict[Path, list[str]] = {}
    for paths in map(find_run, [run for run in runs if run not in known]):
        by_folder.setdefault(paths.root.parent, []).append(paths.name)
    for folder, names in by_folder.items():
        reader = StatusReader(folder)
        found += reader.read(names)
        notes += reader.notes
    return found, notes


def _read_all_on(cluster: str) -> tuple[list[RunStatus], list[str]]:
    if elsewhere.is_elsewhere(cluster):
        found, notes = elsewhere.all_on(cluster)
        return _newest_first(found), notes
    from clusterlm.spec.clusters import RESERVED, find_profile

    if cluster not in RESERVED:
        find_profile(cluster)
    reader = _reader_of_all()
    return _newest_first([one for one in reader.read() if one.cluster == cluster]), reader.notes


def _newest_first(found: list[RunStatus]) -> list[RunStatus]:
    return sorted(found, key=lambda s: (s.state.is_final, s.updated_s_ago or 0.0))


def _reader_of_all() -> StatusReader:
    from clusterlm.cluster.places import all_runs_dirs
    from clusterlm.cluster.status import StatusReader

    first, *further = all_runs_dirs()
    return StatusReader(first, further=further)


def _without_old(found: list[RunStatus]) -> list[RunStatus]:
    living = [one for one in found if not one.state.is_final]
    return living + [one for one in found if one.state.is_final][:ENDED_SHOWN]


def _print_table(found: list[RunStatus]) -> None:
    from clusterlm.cluster.places import all_runs_dirs
    from clusterlm.cluster.table import plain_table, rich_table

    if not found:
        where = " or ".join(map(str, all_runs_dirs()))
        typer.echo(f"no runs in {where}; start one with: clusterlm submit JOB.yaml")
        return
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(rich_table(found))
    else:
        typer.echo("\n".join(plain_table(found)))
    if len(found) <= ADVICE_FOR:
        for one in found:
            if one.advice:
                typer.echo(f"{one.run}: {one.advice}")


def _watch(runs: list[str] | None) -> int:
    from clusterlm.cluster.status import StatusReader, find_run
    from clusterlm.cluster.watch import watch_all, watch_run

    if not runs:
        return watch_all(_reader_of_all(), None, elsewhere=elsewhere.glances(None))
    there = [one for one in map(elsewhere.find, runs) if one]
    if there and len(runs) == 1:
        return elsewhere.watch(there[0])
    known = {one.run for one in there}
    paths = [find_run(run) for run in runs if run not in known]
    if len(runs) == 1:
        return watch_run(paths[0])
    reader = StatusReader(paths[0].root.parent) if paths else _reader_of_all()
    names = [p.name for p in paths]
    return watch_all(reader, names, elsewhere=elsewhere.glances(known))


def _follow(paths: RunPaths, wanted: Wanted, lines: int) -> None:
    from clusterlm.cluster.follow import follow
    from clusterlm.cluster.table import one_line

    try:
        end = follow(paths, wanted, lines, say=_say_at_once)
    except KeyboardInterrupt:
        typer.echo(f"\n{paths.name} goes on; end it with: clusterlm cancel {paths.name}", err=True)
        raise typer.Exit(130) from None
    _say_at_once(f"--- {paths.name} is {one_line(end)} ---")


def _log_options(
    phase: PhaseName | None, rank: int | None, attempt: int | None, task: int | None, errors: bool
) -> list[str]:
    values = {"phase": phase and phase.value, "rank": rank, "attempt": attempt, "task": task}
    options = [f"--{key}={value}" for key, value in values.items() if value is not None]
    return [*options, "--errors"] if errors else options


def _follow_as_json(paths: RunPaths, wanted: Wanted, count: int, place: str | None) -> None:
    """For a follower on another machine; see `cluster/follow_json.py`."""
    from clusterlm.cluster.follow_json import follow_as_json

    follow_as_json(paths, wanted, count, place, say=_say_at_once)


def _say_at_once(line: str) -> None:
    print(line, flush=True)


def _print_newest(paths: RunPaths, wanted: Wanted, count: int) -> None:
    from clusterlm.cluster.logs import newest_lines
    from clusterlm.supervise.history import read_history

    lines, offsets = newest_lines(paths, wanted, count)
    for line in lines:
        print(line)
    if lines:
        return
    job = read_history(paths).jobs.get("preprocess")
    if job is not None and job.owner != paths.name and wanted.phase != "train":
        hint = f"its data is prepared by run {job.owner}: clusterlm logs {job.owner}"
    elif offsets:
        hint = "no such lines so far"
    else:
        hint = f"no logs so far; what it waits for: clusterlm why {paths.name}"
    typer.echo(hint, err=True)


def _print_json(value: object) -> None:
    import json

    typer.echo(json.dumps(value))


@contextmanager
def _quiet_pipe() -> Iterator[None]:
    """`clusterlm logs RUN | head` ends without a word, and an old locale shows `?` for a letter."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # the interpreter flushes once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
