"""Mistakes that several looks at one job have found, as one list."""

from __future__ import annotations

from collections.abc import Iterable

from clusterlm.errors import Problem


def joined(*looks: Iterable[Problem]) -> list[Problem]:
    """Problems of every look; a later one is not heard where an earlier one has complained."""
    found: list[Problem] = []
    for look in looks:
        said = {key_of(problem) for problem in found}
        found += [problem for problem in look if key_of(problem) not in said]
    return list(dict.fromkeys(found))


def key_of(problem: Problem) -> str:
    """Its place in the job, also where a `--set` has brought the value."""
    return problem.where.removeprefix("--set ")
