"""import: a command or configuration of another tool as a job.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterlm.cli.typed import tell

if TYPE_CHECKING:
    from clusterlm.importing.draft import Draft


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("import")(import_files)


def import_files(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="A shell script, a DeepSpeed JSON, an impruver YAML; several make one job.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="JOB", help="The YAML to write; default: print it."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite it.")] = False,
) -> None:
    """Turn a training command of another tool into a YAML file.

    Reads torchrun, deepspeed, accelerate and python command lines of Hugging Face scripts, with the
    #SBATCH lines around them; runs nothing. Everything that is translated, left out or unclear is
    said, on the screen and in the file.
    """
    from clusterlm.errors import ClusterLMError
    from clusterlm.importing.sources import draft_files
    from clusterlm.importing.write import yaml_of
    from clusterlm.spec.wording import printable

    if output is not None and output.exists() and not force:
        raise ClusterLMError(f"{output} is there already; --force overwrites it")
    if output is not None and not output.absolute().parent.is_dir():
        raise ClusterLMError(f"there is no folder {output.absolute().parent} for {output.name}")
    draft = draft_files(files, output.absolute().parent if output else None)
    names = " ".join(printable(file.name) for file in files)
    text = yaml_of(draft, f"clusterlm import {names}")
    if output is None:
        typer.echo(text, nl=False)
    else:
        _write(draft.files | {output.name: text}, output.absolute().parent, output, force=force)
    _tell_about(draft, text, output)


def _write(files: dict[str, str], folder: Path, output: Path, *, force: bool) -> None:
    """The job, and what the script wrote for itself; all or nothing."""
    from clusterlm.errors import ClusterLMError
    from clusterlm.node.files import write_atomically

    for name in files:
        if name != output.name and (folder / name).exists() and not force:
            why = "the script writes it anew; --force overwrites it"
            raise ClusterLMError(f"{folder / name} is there already, and {why}")
    for name, text in files.items():
        write_atomically(folder / name, text, mode=0o644)


def _tell_about(draft: Draft, text: str, output: Path | None) -> None:
    from clusterlm.importing.draft import grouped
    from clusterlm.importing.shell import readable
    from clusterlm.spec.wording import times

    notes = [("left out", draft.left_out), ("unclear, or worth a look", draft.unclear)]
    # what is printed has them at its head already
    for title, rows in notes if output else ():
        if rows:
            tell(f"{title}:")
        for line in grouped(rows):
            tell(f"  {readable(line)}")
    where = output or Path("job.yaml")
    tell(
        f"{times(draft.num_translated, 'value')} translated, {len(draft.left_out)} left out, "
        f"{len(draft.unclear)} to look at"
        + (f"; written: {', '.join([str(output), *draft.files])}" if output else "")
    )
    _tell_what_is_missing(draft, text, where)


def _tell_what_is_missing(draft: Draft, text: str, where: Path) -> None:
    """What the loader still says about the job, with the placeholders first."""
    from clusterlm.errors import SpecError
    from clusterlm.importing.shell import readable
    from clusterlm.spec.load import load_text

    for place, why in draft.to_fill_in.items():
        tell(f"fill in: {place}: {readable(why)}")
    try:
        load_text(text, where)
    except SpecError as error:
        for note in error.notes:
            tell(f"note: {readable(note)}")
        left = [p for p in error.problems if p.where not in draft.to_fill_in]
        for problem in left:
            tell(f"check says: {problem.where}: {problem.message}")
        if draft.to_fill_in or left:
            tell(f"then: clusterlm check {where}")
    else:
        done = "change what stands behind CHANGE, then" if draft.to_fill_in else "next"
        tell(f"{done}: clusterlm check {where}")
