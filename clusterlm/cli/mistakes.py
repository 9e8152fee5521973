"""Every mistake of a job at once: in its file, its data, its secrets, and for its cluster.

What is wrong in one place does not keep the others from being looked at. A laptop asks the same
question of a cluster, and this is what answers it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from clusterlm.cli.typed import files_of_submit, mistakes_in_data, tell
from clusterlm.errors import ClusterLMError, Problem, SpecError

if TYPE_CHECKING:
    from clusterlm.cluster.job_question import JobAnswer, JobQuestion
    from clusterlm.spec.job import Job
    from clusterlm.spec.load import LookedAt


def find_mistakes(asked: JobQuestion, path: Path) -> JobAnswer:
    """Look at a job.

    Args:
        asked: the job, and what to look at.
        path: of its YAML, which need not be there: what it names is relative to its folder.

    Raises:
        SpecError: it is no YAML.
    """
    from clusterlm.cli.plan import warn_if_it_cannot_fit
    from clusterlm.cluster.job_question import JobAnswer
    from clusterlm.cluster.places import use_folders
    from clusterlm.spec.clusters import folders_of
    from clusterlm.spec.joined import joined
    from clusterlm.spec.load import LoadedJob, in_order, look_at_text, with_lines

    looked = look_at_text(asked.text, path, asked.overrides)
    if looked.profile:
        use_folders(folders_of(looked.profile))
    further = look_at_data(looked)
    if asked.with_secrets and looked.mistaken.isdisjoint(("secrets", "image")):
        from clusterlm.cluster.secret_values import missing_secrets

        further += missing_secrets(lists_of_secrets(looked.job))
    heard = [p for p in (*looked.problems, *further) if not asked.is_judged(p)]
    said = _ask_cluster(asked, looked, heard)
    placed = with_lines([*further, *said.problems], asked.text, asked.overrides)
    found = joined(looked.problems, placed)
    problems = in_order([p for p in found if not asked.is_judged(p)])
    loaded = LoadedJob(
        looked.job, asked.text, path, tuple(asked.overrides), looked.notes, looked.profile
    )
    if not problems and asked.needed is None and "model.name" not in asked.judged:
        warn_if_it_cannot_fit(loaded)
    files = files_of_submit(loaded) if asked.renders and not (problems or said.trouble) else {}
    return JobAnswer(
        problems=[(p.where, p.message, p.line) for p in problems],
        notes=list(looked.notes),
        lines=said.lines,
        is_fit=said.is_fit,
        trouble=said.trouble,
        files=files,
    )


def refuse(answer: JobAnswer, source: str) -> None:
    """Raise what was found against a job."""
    if answer.problems:
        if answer.trouble:
            tell(f"the cluster was not asked: {answer.trouble}")
        raise SpecError(source, answer.mistakes)
    if answer.trouble:
        raise ClusterLMError(answer.trouble)


def verdict(job: Path, is_fit: bool) -> int:
    """The last line, and the exit code."""
    if not is_fit:
        typer.echo(f"{job}: well written, but the cluster cannot run it (!!)")
        return 1
    typer.echo(f"{job}: fine")
    return 0


def look_at_data(looked: LookedAt) -> list[Problem]:
    """What the first records of the sources show."""
    return mistakes_in_data(looked.job, looked.mistaken)


def lists_of_secrets(job: Job) -> dict[str, list[str]]:
    """Names of secrets, by the key that lists them."""
    build = job.image.build_secrets if job.image else []
    return {"secrets": list(job.secrets), "image.build_secrets": list(build)}


@dataclass(frozen=True)
class _Said:
    """Of the cluster."""

    problems: Sequence[Problem] = ()
    lines: list[str] = field(default_factory=list)
    is_fit: bool = True
    trouble: str = ""


def _ask_cluster(asked: JobQuestion, looked: LookedAt, heard: Sequence[Problem]) -> _Said:
    from clusterlm.cluster.host import LocalHost
    from clusterlm.cluster.preflight import impossible
    from clusterlm.spec.joined import key_of

    job = looked.job
    is_known = "cluster" not in {*looked.mistaken, *map(key_of, heard)}
    if not asked.asks_cluster or (is_known and job.cluster == "local" and not job.image):
        return _Said()
    if not is_known:
        return _Said(trouble="which one is not known")
    try:
        found = [p for p in impossible(job, LocalHost()) if _is_sound(p, looked.mistaken)]
        if job.cluster == "local":
            return _Said(found)
        return _look_closely(asked, looked, found, heard)
    except ClusterLMError as error:
        return _Said(trouble=str(error))


def _look_closely(
    asked: JobQuestion, looked: LookedAt, found: list[Problem], heard: Sequence[Problem]
) -> _Said:
    """What doctor makes of it; sbatch is asked only for a job that it may take."""
    from clusterlm.cli.plan import bytes_of_checkpoints
    from clusterlm.cluster.doctor.check_job import check_job
    from clusterlm.cluster.host import LocalHost
    from clusterlm.spec.joined import joined, key_of

    needed = asked.needed
    if needed is None and not heard:
        needed = bytes_of_checkpoints(looked.job)
    of_resources = any(key_of(p).startswith("resources") for p in heard)
    checked = check_job(
        looked.job,
        LocalHost(),
        needed=needed,
        with_table=asked.with_table,
        asks_for_start=not (found or of_resources),
    )
    problems = [_with_origin(p, asked, looked) for p in joined(found, checked.problems)]
    return _Said(problems, checked.lines, checked.is_fit)


def _is_sound(problem: Problem, mistaken: frozenset[str]) -> bool:
    """What it speaks of was written, and is not a default in the place of a mistake."""
    rests_on = {problem.where, problem.where.rpartition(".")[0], "resources.partition"}
    if problem.where == "resources.nodes":
        rests_on.add("resources.spares")
    return mistaken.isdisjoint(rests_on - {"resources", "image"})


def _with_origin(problem: Problem, asked: JobQuestion, looked: LookedAt) -> Problem:
    """The problem, with where its value comes from when the job does not say it."""
    from clusterlm.spec.load import values_of

    section, _, key = problem.where.partition(".")
    own = values_of(asked.text, "", asked.overrides).get(section)
    given = looked.profile.resources if looked.profile else None
    is_given = section == "resources" and getattr(given, key, None) is not None
    if not is_given or (isinstance(own, dict) and key in own):
        return problem
    name = looked.job.cluster
    origin = f"it comes from profile {name}: clusterlm clusters edit {name}"
    return Problem(problem.where, f"{problem.message}; {origin}", problem.line)
