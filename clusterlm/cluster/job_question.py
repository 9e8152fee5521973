"""A question about a job that is not submitted, and the answer: what is there against it.

As they travel between a laptop and its cluster, in JSON. Both are the same clusterlm, but what
comes back was written by another machine, and is looked at as such.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from clusterlm.errors import Problem
from clusterlm.spec.joined import key_of
from clusterlm.spec.place import is_within


class _Travels(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class JobQuestion(_Travels):
    """What is to be looked at."""

    text: str
    """Of the YAML, which need not be there."""
    overrides: list[str] = []
    judged: list[str] = []
    """Keys that the laptop has judged: what they name is there, and will go with a submit."""
    needed: float | None = None
    """Bytes of checkpoints and model, where only the laptop can tell."""
    asks_cluster: bool = True
    with_secrets: bool = True
    """Look whether they are set; from a laptop they come with a submit."""
    with_table: bool = False
    """Also starts by nodes and time."""
    renders: bool = False
    """Also the files of a submit."""

    def is_judged(self, problem: Problem) -> bool:
        """Whether the laptop knows better."""
        return any(is_within(key_of(problem), place) for place in self.judged)


class JobAnswer(_Travels):
    """What came of it."""

    problems: list[tuple[str, str, int | None]] = []
    """Where, what, and the line in the text."""
    notes: list[str] = []
    lines: list[str] = []
    """What the cluster says to the job, for people."""
    is_fit: bool = True
    trouble: str = ""
    """Why the cluster could not be asked."""
    files: dict[str, str] = {}
    """Of a submit, by name."""

    @property
    def mistakes(self) -> list[Problem]:
        """The problems, as such."""
        return [Problem(*problem) for problem in self.problems]
