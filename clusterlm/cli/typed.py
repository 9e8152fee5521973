"""What many commands are typed with (a YAML, changes to it, a cluster), and the job of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterlm.errors import Problem, SpecError

if TYPE_CHECKING:
    from clusterlm.spec.job import Job
    from clusterlm.spec.load import LoadedJob

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="The YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Change a value of the YAML; may be repeated."),
]
Cluster = Annotated[
    str | None,
    typer.Option("--cluster", metavar="NAME", help="Where: local, slurm, or a cluster of yours."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
# from a laptop: where the command was typed, in the project as it was sent
TypedIn = Annotated[Path | None, typer.Option("--from", hidden=True)]


def tell(line: str) -> None:
    """Say a line while something is under way."""
    # not on stdout: --json is for programs
    typer.echo(line, err=True)


def load(
    job: Path, overrides: list[str] | None, name: str | None, cluster: str | None = None
) -> LoadedJob:
    """Read a job and print its notes; the folders of its cluster become those of this process."""
    from clusterlm.cluster.places import use_folders
    from clusterlm.spec.clusters import folders_of
    from clusterlm.spec.load import load_job

    changes = with_cluster([*(overrides or []), *([f"name={name}"] if name else [])], cluster)
    notes: tuple[str, ...] = ()
    try:
        loaded = load_job(job, changes)
        notes = loaded.notes
    except SpecError as error:
        # what was read otherwise than it was written may be what is behind the mistake
        notes = error.notes
        raise
    finally:
        for note in notes:
            typer.echo(f"note: {note}", err=True)
    if loaded.profile:
        use_folders(folders_of(loaded.profile))
    return loaded


def with_cluster(overrides: list[str] | None, cluster: str | None) -> list[str]:
    """The changes to a YAML, with `--cluster` among them."""
    return [*(overrides or []), *([override_of(cluster)] if cluster is not None else [])]


def override_of(cluster: str) -> str:
    """`--cluster NAME` as the `--set` that it stands for."""
    import json

    # in quotes: a name such as 1 is text
    return f"cluster={json.dumps(cluster)}"


def refuse_bad_data(loaded: LoadedJob) -> None:
    """Look at the first records of the job's sources.

    Raises:
        SpecError: what is wrong with them.
    """
    if problems := mistakes_in_data(loaded.job):
        from clusterlm.spec.load import refusal

        raise refusal(loaded, problems)


def mistakes_in_data(job: Job, mistaken: Collection[str] = ()) -> list[Problem]:
    """What the first records of a job's sources show; nothing rests on a mistaken section."""
    if job.data is None or "data" in mistaken:
        return []
    from clusterlm.data.looks.first_look import first_look

    is_here = "image" not in mistaken and (job.image is None or job.runtime == "none")
    return first_look(job.data, in_image=not is_here)


def files_of_submit(loaded: LoadedJob) -> dict[str, str]:
    """What a submit of the job would write, by name, without the values of its secrets."""
    from clusterlm.cluster.secret_values import hidden, hide_secrets
    from clusterlm.cluster.submit import rendered

    job = loaded.job
    hide_secrets([*job.secrets, *(job.image.build_secrets if job.image else [])])
    return {file: hidden(text) for file, text in rendered(loaded, job.name).items()}


def print_files(files: Mapping[str, str]) -> None:
    """The files of a submit, each below its name."""
    from clusterlm.cluster.secret_values import hidden

    for file, text in files.items():
        typer.echo(hidden(f"==> {file} <==\n{text}"))
