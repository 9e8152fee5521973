"""data preview|stats|verify|dropped: what a job trains on, looked at."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterlm.cli.typed import AsJson, JobFile, Overrides, load, tell

if TYPE_CHECKING:
    from clusterlm.cli.prepared import Target
    from clusterlm.data.looks.dropped import Dropped
    from clusterlm.data.looks.verify import Verdict

JobOrRun = Annotated[
    str, typer.Argument(metavar="JOB|RUN", help="The YAML file, or the name of a run.")
]
Prepared = Annotated[
    str,
    typer.Argument(
        metavar="JOB|RUN|FOLDER",
        help="The YAML file, the name of a run, the folder of prepared data, or its fingerprint.",
    ),
]
OneSource = Annotated[
    str | None,
    typer.Option("--source", metavar="S", help="Number, data.sources[1], or a part of its path."),
]

data = typer.Typer(help="Look at the data of a job.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(data, name="data")


@data.command("preview")
def preview(
    job: JobFile,
    source: OneSource = None,
    count: Annotated[int, typer.Option("-n", min=1, help="Documents of each source.")] = 3,
    overrides: Overrides = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page in place of it.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Long documents whole, not only both ends.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show samples as the model will see them.

    The first documents of each source, trained tokens in green. Reads the sources; nothing has to
    be prepared.
    """
    from clusterlm.cli.prepared import data_of

    spec = data_of(load(job, overrides, None).job, job)
    with _with_libraries():
        from clusterlm.data.looks.preview import Previewer
        from clusterlm.data.looks.preview_tokenizer import tokenizer_to_look
        from clusterlm.data.looks.source_choice import choose_sources

        chosen = choose_sources(spec, source)
        notes: list[str] = []
        with tokenizer_to_look(spec, notes.append) as tokenizer:
            for note in notes:
                tell(f"note: {note}")
            previewer = Previewer(spec, tokenizer)
            found = (previewer.look(place, one, count) for place, one in chosen)
            if as_json:
                _print_json({"notes": notes, "sources": [one.to_json() for one in found]})
            elif html is not None:
                from clusterlm.data.looks.preview_page import preview_page

                _write(html, preview_page(job.stem, list(found), notes))
            else:
                from clusterlm.data.looks.preview_lines import print_previews

                _forgive_locale()
                print_previews(found, sys.stdout, is_coloured=_has_colours(), is_full=full)


@data.command("stats")
def stats(
    job: JobOrRun,
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--html", "-o", metavar="FILE", help="Where to; default: NAME-data.html."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a page of numbers about prepared data.

    Lengths, domains and tokens of the kept documents, how blocks are filled, what is lost.
    """
    from clusterlm.cli.prepared import data_of_target, find_prepared

    target = find_prepared(job, overrides or [])
    spec = data_of_target(target)
    with _with_libraries(), _progress() as show:
        from clusterlm.data.looks.stats import stats_of
        from clusterlm.data.looks.stats_page import lengths_table, stats_page
        from clusterlm.data.preprocess import usable_workers
        from clusterlm.data.summary import summary_of

        found = stats_of(target.root, spec, workers=usable_workers(8), report=show)
    page = output if output or as_json else Path(f"{target.name}-data.html")
    if as_json:
        _print_json(found.to_json())
    else:
        _forgive_locale()
        typer.echo(summary_of(found.manifest))
        typer.echo("\n".join(["", *lengths_table(found)]))
    if page is not None:
        _write(page, stats_page(target.name, found), quiet=as_json)


@data.command("verify")
def verify(
    job: Prepared,
    overrides: Overrides = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take away what is damaged, to be made again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare every hash of prepared data.

    Reads all of it. Exit code 1: something is damaged.
    """
    from clusterlm.cli.prepared import find_prepared

    target = find_prepared(job, overrides or [], may_be_damaged=True)
    with _with_libraries(), _progress() as show:
        from clusterlm.data.looks import verify as verifying
        from clusterlm.data.summary import size_in_words

        def report(done: int, total: int) -> None:
            show(f"comparing {size_in_words(done)} of {size_in_words(total)}")

        verdict = verifying.verify(target.root, report)
    gone = verifying.repair(verdict) if repair else []
    if as_json:
        _print_json(verdict.to_json())
    else:
        _print_verdict(verdict, target, gone, job)
    raise typer.Exit(0 if verdict.is_whole else 1)


@data.command("dropped")
def dropped(
    job: JobOrRun,
    overrides: Overrides = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="R", help="Only this one, such as empty.")
    ] = None,
    source: OneSource = None,
    count: Annotated[int, typer.Option("-n", min=0, help="So many records.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List records that were left out, and why.

    File and line, reason, what was found; then the counts by reason. What is not taken after
    reading, such as duplicates, is counted only.
    """
    from clusterlm.cli.prepared import data_of_target, find_prepared

    target = find_prepared(job, overrides or [])
    spec = data_of_target(target)
    with _with_libraries():
        from clusterlm.data.looks.dropped import dropped_of
        from clusterlm.data.looks.source_choice import choose_sources

        places = [place for place, _ in choose_sources(spec, source)]
        found = dropped_of(target.root, spec, places, reason=reason, limit=count)
    if as_json:
        rows = [record._asdict() for record in found.records]
        _print_json(
            {
                "records": rows,
                "counts": found.counts,
                "planned": found.planned,
                "notes": found.notes,
            }
        )
        return
    _forgive_locale()
    _print_dropped(found)


def _print_verdict(verdict: Verdict, target: Target, gone: list[Path], asked: str) -> None:
    from clusterlm.data.summary import size_in_words
    from clusterlm.spec.wording import times

    read = (
        f"{times(verdict.num_files, 'file')} and {times(verdict.num_shards, 'shard')}"
        f" ({times(verdict.num_chunks, 'chunk')}, {size_in_words(verdict.num_bytes)}) compared"
    )
    if verdict.is_whole:
        typer.echo(f"whole: {read}: {target.root}")
        return
    for damage in verdict.damages:
        typer.echo(f"damaged: {damage.folder}: {damage.what}")
    typer.echo(f"{read}; {times(len(verdict.folders), 'folder')} damaged")
    again = "the next submit of this data makes it again"
    if gone:
        typer.echo(f"removed {times(len(gone), 'folder')}; {again}")
    else:
        typer.echo(f"take it away with: clusterlm data verify {asked} --repair; {again}")


def _print_dropped(found: Dropped) -> None:
    from clusterlm.data.looks.preview_lines import near
    from clusterlm.data.summary import CHOICES, PLANNED, REASONS
    from clusterlm.spec.wording import printable

    for note in found.notes:
        tell(f"note: {note}")
    for one in found.records:
        typer.echo(f"{near(one.place)}  {one.reason}  {printable(one.detail)}")
    if not found.counts and not found.planned:
        typer.echo("no record was left out")
        return
    if len(found.records) < found.num_known:
        typer.echo(f"... and {found.num_known - len(found.records):,} more: -n")
    listed = sum(number for key, number in found.counts.items() if key in REASONS)
    if found.num_known < listed:
        # a chunk names its first 50
        typer.echo(f"{listed - found.num_known:,} more are only counted")
    lines = [
        (key, number, REASONS.get(key) or f"{CHOICES[key]} (counted only)")
        for key, number in sorted(found.counts.items(), key=lambda row: -row[1])
    ]
    lines += [
        (key, number, f"{PLANNED[key]} ({split}, counted only)")
        for split, counts in found.planned.items()
        for key, number in counts.items()
    ]
    width = max(len(key) for key, _, _ in lines)
    for key, number, words in lines:
        typer.echo(f"{key:<{width}}  {number:>9,}  {words}")


def _write(path: Path, text: str, *, quiet: bool = False) -> None:
    from clusterlm.node.files import write_atomically

    write_atomically(path, text, mode=0o644)
    if not quiet:
        typer.echo(f"written: {path.absolute()}")


def _print_json(value: object) -> None:
    import json

    typer.echo(json.dumps(value))


def _has_colours() -> bool:
    import os

    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _forgive_locale() -> None:
    # an old locale shows ? for a letter, and does not end in a traceback
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")


@contextmanager
def _with_libraries() -> Iterator[None]:
    """A light installation (a login node's) has no numpy: say what is missing."""
    from clusterlm.errors import DataError

    try:
        yield
    except ModuleNotFoundError as error:
        raise DataError(
            f"looking at data needs what trains (there is no {error.name} here):"
            " pip install 'clusterlm[train]'"
        ) from error


@contextmanager
def _progress() -> Iterator[_Line]:
    line = _Line()
    try:
        yield line
    finally:
        line.clear()


class _Line:
    """One line on a terminal that is written over, some times a second."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._next = 0.0
        self._width = 0

    def __call__(self, words: str) -> None:
        now = time.monotonic()
        if self._is_shown and now >= self._next:
            self._next = now + 0.2
            print(f"\r{words:<{self._width}}", end="", file=sys.stderr, flush=True)
            self._width = len(words)

    def clear(self) -> None:
        if self._width:
            print(f"\r{'':<{self._width}}\r", end="", file=sys.stderr, flush=True)
