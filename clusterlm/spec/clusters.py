"""clusters.yaml: the clusters that a job may name, all mistakes in it at once.

    clusters:
      mycluster: {host: login.example.org, folder: ~/clusterlm, resources: {partition: gpu}}

One file for all: `$CLUSTERLM_CONFIG`, else `clusterlm/clusters.yaml` of the XDG config folder. It
holds lines of shell (`setup`) and where to connect to, so, as ssh does with its own, a file that
others may write is refused. What doctor found lies beside it (`probe.py`), never in it: the file
and its comments are the user's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from clusterlm.errors import ClusterLMError, Problem, SpecError
from clusterlm.spec.base import without_plugins
from clusterlm.spec.document import CLUSTERS, Document, NotYaml, read_document
from clusterlm.spec.local_folders import clusters_file as clusters_file
from clusterlm.spec.local_folders import folders_in, refuse_open_file
from clusterlm.spec.mistakes import problems_of
from clusterlm.spec.place import Place, dotted, line_of
from clusterlm.spec.profile import Profile
from clusterlm.spec.rules_profile import problems_in
from clusterlm.spec.text_file import read_text
from clusterlm.spec.wording import did_you_mean, printable, shown

RESERVED = ("local", "slurm")
"""What a job's `cluster` means without any profile."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAMES = "only letters, digits and . _ -, beginning with a letter or digit, at most 64 characters"


def read_clusters() -> dict[str, Profile]:
    """Every profile by its name, in the order of the file; none when there is no file.

    Raises:
        SpecError: with every mistake in it, each with its place and line.
        ClusterLMError: it cannot be read, or others may write it.
    """
    path = clusters_file()
    if not path.exists():
        return {}
    refuse_open_file(path)
    return parse_clusters(read_text(path, wanted="give the path of a clusters.yaml"), str(path))


def find_profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        ClusterLMError: there is none; the message lists those that there are.
    """
    clusters = read_clusters()
    if name not in clusters:
        raise ClusterLMError(f"{shown(name)} is no cluster in {_shown_file()}; {advice(name)}")
    return clusters[name]


def advice(name: str) -> str:
    """What to write in place of a name that is no cluster: a near one, or how to add it."""
    accepted = [*RESERVED, *read_clusters()]
    near = did_you_mean(name, accepted)
    add = "add one with: clusterlm clusters add NAME --host HOST"
    return near if near.startswith("did") else f"{near}; {add}"


def parse_clusters(text: str, source: str) -> dict[str, Profile]:
    """Profiles of a text.

    Args:
        text: what stands, or will stand, in the file.
        source: its name for the message.

    Raises:
        SpecError: with every mistake, each with its place and line.
    """
    source = printable(source)
    if all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines()):
        return {}
    try:
        document = read_document(text, CLUSTERS)
    except NotYaml as error:
        raise SpecError(source, [error.problem]) from error
    found, problems = _profiles_of(document.values)
    problems = [*document.problems, *problems]
    if problems:
        placed = list(dict.fromkeys(_with_line(problem, document) for problem in problems))
        raise SpecError(source, sorted(placed, key=lambda p: (p.line is None, p.line or 0)))
    return found


def folders_of(profile: Profile) -> dict[str, str]:
    """`CLUSTERLM_RUNS_DIR` and so on of a cluster whose login node is this machine.

    Empty for one that is reached over SSH: its folders are over there.
    """
    return {} if profile.host else folders_in(profile.model_dump())


def name_problem(name: str) -> str | None:
    """Why a cluster cannot have this name; None when it can."""
    if name in RESERVED:
        return f"{name} has a meaning of its own in a job; choose another name"
    if not _NAME.fullmatch(name):
        return f"{shown(name)} is no name of a cluster; accepted: {_NAMES}"
    return None


def _profiles_of(values: dict[str, Any]) -> tuple[dict[str, Profile], list[Problem]]:
    problems = [
        Problem(key, f"unknown key; {did_you_mean(key, ['clusters'])}")
        for key in values
        if key != "clusters"
    ]
    # a file whose last cluster was removed
    entries = values.get("clusters") or {}
    if not isinstance(entries, dict):
        message = f"found {shown(entries)}; write the name of a cluster, and its keys below it"
        return {}, [*problems, Problem("clusters", message)]
    found = {}
    for name, entry in entries.items():
        where: Place = ("clusters", name)
        if wrong := name_problem(name):
            problems.append(Problem(dotted(where), wrong))
        profile, own = _profile_of({} if entry is None else entry)
        problems += [Problem(f"{dotted(where)}.{p.where}".rstrip("."), p.message) for p in own]
        if profile is not None:
            found[name] = profile
    return found, problems


def _profile_of(entry: object) -> tuple[Profile | None, list[Problem]]:
    if not isinstance(entry, dict):
        return None, [Problem("", f"found {shown(entry)}; write a mapping of keys and values")]
    # a section whose keys are all commented out is a section left out
    entry = {key: value for key, value in entry.items() if value is not None}
    with without_plugins():
        try:
            profile = Profile.model_validate(entry)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            return None, problems_of(errors, Profile) + _further_problems(entry, errors)
    return profile, list(problems_in(profile))


def _further_problems(entry: dict[str, Any], errors: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """What is wrong between the keys that are right by themselves."""
    mistaken = {str(error["loc"][0]) for error in errors}
    sound = {key: value for key, value in entry.items() if key not in mistaken}
    # a mistaken key, or one that is not known, may have been meant for `host`
    if "host" not in sound:
        mistaken |= {"user", "port", "transport"}
    found = problems_in(Profile.model_validate(sound))
    return [p for p in found if re.split(r"[.\[]", p.where)[0] not in mistaken]


def _with_line(problem: Problem, document: Document) -> Problem:
    line = problem.line or line_of(problem.where, document.lines)
    return Problem(problem.where, problem.message, line)


def _shown_file() -> str:
    path = clusters_file()
    return str(path) if path.exists() else f"{path}, which is not there"
