"""job.yaml -> Job, or every mistake in it at once.

    text -> values with lines -> --set -> old names -> what the cluster's profile fills in
         -> absolute paths, small files read -> what a DeepSpeed JSON says -> sections -> rules

A section with a mistake does not keep the others from being checked: only the rules that read it
are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clusterlm.errors import Problem, SpecError
from clusterlm.spec.cluster_defaults import apply_profile, contradictions
from clusterlm.spec.clusters import RESERVED, read_clusters
from clusterlm.spec.deepspeed_json import follow_json
from clusterlm.spec.document import Document, NotYaml, read_document
from clusterlm.spec.inlined import inline_patterns
from clusterlm.spec.job import Job, build_validators
from clusterlm.spec.local_paths import make_paths_absolute
from clusterlm.spec.mistakes import problems_of
from clusterlm.spec.old_names import Translated, translate_old_names
from clusterlm.spec.overrides import apply_overrides
from clusterlm.spec.place import Place, dotted, is_within, line_of
from clusterlm.spec.probe import Probe, read_probe
from clusterlm.spec.profile import Profile
from clusterlm.spec.rules import RULES, notes_on
from clusterlm.spec.text_file import read_text
from clusterlm.spec.training_arguments import read_flags
from clusterlm.spec.wording import printable

WANTED = "give the path of a job.yaml"


@dataclass(frozen=True)
class LoadedJob:
    """A job that may be submitted.

    Attributes:
        job: with every default filled in and every path absolute.
        text: the file as the user wrote it.
        path: where it was read, absolute.
        overrides: the `--set` that were applied, in order.
        notes: what was read as something else than was written; for the user to see.
        profile: of the cluster that the job names; None for local and slurm.
    """

    job: Job
    text: str
    path: Path
    overrides: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    profile: Profile | None = None


@dataclass(frozen=True)
class LookedAt:
    """A job that may have mistakes.

    Attributes:
        job: of what is sound; defaults stand for the rest.
        problems: every mistake, in order.
        mistaken: sections with mistakes of their own, and the keys in them: `resources.time`.
        notes: as of a `LoadedJob`.
        profile: of the cluster that the job names.
    """

    job: Job
    problems: list[Problem]
    mistaken: frozenset[str]
    notes: tuple[str, ...]
    profile: Profile | None


def load_job(path: Path, overrides: Sequence[str] = ()) -> LoadedJob:
    """Read, complete and check a job.yaml.

    Args:
        path: the file; what it names is relative to its folder.
        overrides: `a.b.c=value`, each read as YAML, applied in order before anything is checked.

    Raises:
        SpecError: with every mistake, each with its place and line; also of clusters.yaml, when the
            job names a cluster of it.
        ClusterLMError: the file cannot be read at all.
    """
    return load_text(read_job_text(path), path, overrides)


def load_text(text: str, path: Path, overrides: Sequence[str] = ()) -> LoadedJob:
    """Complete and check a job.yaml whose text is at hand.

    Args:
        text: what stands, or will stand, in the file.
        path: the file, which need not be there; what the text names is relative to its folder.
        overrides: as for `load_job`.

    Raises:
        SpecError: with every mistake, each with its place and line.
    """
    looked = look_at_text(text, path, overrides)
    if looked.problems:
        raise SpecError(printable(path.name), looked.problems, looked.notes)
    return LoadedJob(
        looked.job, text, path.absolute(), tuple(overrides), looked.notes, looked.profile
    )


def look_at_text(text: str, path: Path, overrides: Sequence[str] = ()) -> LookedAt:
    """As `load_text`, for who wants to look at what is sound of a job with mistakes, too.

    Raises:
        SpecError: it is no YAML.
    """
    path = path.absolute()
    document = _read(text, printable(path.name))
    set_places, problems = apply_overrides(document.values, overrides)
    old = _translate(document.values)
    profile, probe = _cluster_of(document.values)
    filled = apply_profile(document.values, profile, probe) if profile else []
    bad_paths = make_paths_absolute(document.values, str(path.parent))
    bad_paths += inline_patterns(document.values)
    train = document.values.get("train")
    followed = follow_json(train) if isinstance(train, dict) else []
    job, mistakes, mistaken = _check(
        document.values, {p.where.partition(".")[0] for p in bad_paths}
    )
    # a value that was written under another name has its line there
    moved = [replace(p, where=old.origins.get(p.where, p.where)) for p in mistakes]
    problems += [*old.problems, *bad_paths, *moved]
    placed = [_with_origin(problem, document, set_places) for problem in problems]
    placed = list(dict.fromkeys([*document.problems, *placed]))
    notes = (*old.notes, *filled, *followed)
    if not placed:
        notes += (*notes_on(job), *contradictions(job, probe))
    return LookedAt(job, in_order(placed), frozenset(mistaken), notes, profile)


def values_of(text: str, source: str, overrides: Sequence[str]) -> dict[str, Any]:
    """A job's values as they were written, with `--set` applied and old names replaced; unchecked.

    Raises:
        SpecError: it is no YAML.
    """
    document = _read(text, source)
    apply_overrides(document.values, overrides)
    _translate(document.values)
    return document.values


def refusal(loaded: LoadedJob, problems: Sequence[Problem]) -> SpecError:
    """The error for problems that were found after loading, with their lines in the file."""
    placed = with_lines(problems, loaded.text, loaded.overrides)
    return SpecError(printable(loaded.path.name), in_order(placed))


def with_lines(
    problems: Sequence[Problem], text: str, overrides: Sequence[str] = ()
) -> list[Problem]:
    """Problems that were found elsewhere, with their lines in a YAML text, or their `--set`."""
    document = read_document(text)
    set_places, _ = apply_overrides(document.values, overrides)
    return [_with_origin(problem, document, set_places) for problem in problems]


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """As they stand in the file; those that stand nowhere in it last."""
    return sorted(problems, key=lambda p: (p.line is None, p.line or 0))


def read_job_text(path: Path) -> str:
    """The text of a job.yaml.

    Raises:
        ClusterLMError: it cannot be read.
    """
    return read_text(path.absolute(), wanted=WANTED, in_folder="give the job.yaml in it")


def _read(text: str, source: str) -> Document:
    try:
        return read_document(text)
    except NotYaml as error:
        raise SpecError(source, [error.problem]) from error


def _cluster_of(values: dict[str, Any]) -> tuple[Profile | None, Probe | None]:
    """What is known of the cluster that a job names; an unknown name is for a rule to refuse."""
    name = values.get("cluster")
    # without a cluster nobody reads clusters.yaml: a mistake in it is no matter of this job
    if not isinstance(name, str) or name in RESERVED:
        return None, None
    profile = read_clusters().get(name)
    return profile, read_probe(name) if profile else None


def _translate(values: dict[str, Any]) -> Translated:
    done = translate_old_names(values)
    if isinstance(train := values.get("train"), dict):
        read_flags(train)
    # a section whose keys are all commented out is a section left out
    for key in [key for key, value in values.items() if value is None and key in Job.model_fields]:
        del values[key]
    return done


def _check(values: dict[str, Any], broken: set[str]) -> tuple[Job, list[Problem], set[str]]:
    """The job as far as it is sound, the mistakes in and between its sections, and where they are.

    Args:
        values: what was written, completed.
        broken: sections in which a mistake was found before.
    """
    build_validators()
    try:
        job = Job.model_validate(values)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        places = [e["loc"] for e in errors]
        broken = broken | {str(place[0]) for place in places}
        sound = _sound_part(values, places, broken)
        keys = {dotted(place[:2]) for place in places}
        return sound, problems_of(errors, Job) + _problems_between(sound, broken), broken | keys
    return job, _problems_between(job, broken), broken


def _sound_part(values: dict[str, Any], mistaken: list[Place], broken: set[str]) -> Job:
    """A job of the sections without mistakes; what stands in for the others is read by no rule."""
    sound = {key: value for key, value in values.items() if key not in broken}
    # every key of these has a default, so the sound ones stay: a rule looks at the further keys of
    # train, a cluster at each of resources
    for section in ("train", "resources"):
        bad_keys = {place[1:2] for place in mistaken if place[0] == section}
        if isinstance(written := values.get(section), dict) and () not in bad_keys:
            sound[section] = {k: v for k, v in written.items() if (k,) not in bad_keys}
    return Job.model_validate({"name": "unnamed", **sound})


def _problems_between(job: Job, broken: set[str]) -> list[Problem]:
    """Problems of every rule that reads sound sections only."""
    checks = [check for check, reads in RULES if broken.isdisjoint(reads)]
    return [problem for check in checks for problem in check(job)]


def _with_origin(problem: Problem, document: Document, set_places: list[Place]) -> Problem:
    """The problem with its line in the file, or named after the `--set` that brought it."""
    if problem.where.startswith("--set"):
        return problem
    where, line = problem.where, line_of(problem.where, document.lines)
    for place in map(dotted, set_places):
        # `--set dta.seed=1` brings a whole section, `dta`, that no line of the file has
        if is_within(where, place) or (line is None and is_within(place, where)):
            return Problem(f"--set {where}", problem.message)
    return Problem(where, problem.message, line)
