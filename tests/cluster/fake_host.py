"""A Host whose Slurm says what a test tells it, and that counts how often it was asked."""

from __future__ import annotations

from collections.abc import Sequence

from clusterlm.cluster.host import Completed

UNREACHABLE = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
UNKNOWN_ID = "slurm_load_jobs error: Invalid job id specified"
NO_DATABASE = "sacct: error: Problem talking to the database: Connection refused"
NO_ACCOUNTING = "Slurm accounting storage is disabled"


class FakeHost:
    """Answers by program name: (code, out, err)."""

    def __init__(self, **answers: tuple[int | None, str, str]) -> None:
        self.answers = answers
        self.calls: list[Sequence[str]] = []

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0) -> Completed:
        self.calls.append(argv)
        code, out, err = self.answers.get(argv[0], (0, "", ""))
        return Completed(tuple(argv), code, out, err)

    def has(self, program: str) -> bool:
        return program in self.answers

    def asked(self, program: str) -> int:
        return sum(argv[0] == program for argv in self.calls)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
