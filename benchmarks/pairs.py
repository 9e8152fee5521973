"""Commands timed in turn: A B C A B C ..., so that a noisy machine hits all of them alike."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timed:
    """One command: seconds of wall time per run, in the order of the rounds."""

    name: str
    wall_s: list[float]

    @property
    def median_s(self) -> float:
        return statistics.median(self.wall_s)

    def ratio_to(self, other: Timed) -> float:
        """Median of the ratios round by round."""
        pairs = zip(self.wall_s, other.wall_s, strict=True)
        return statistics.median(a / b for a, b in pairs)


def time_in_turn(
    commands: Mapping[str, Sequence[str]],
    *,
    rounds: int = 11,
    env: Mapping[str, str] | None = None,
) -> list[Timed]:
    """Run every command once uncounted, then `rounds` times in turn."""
    walls: dict[str, list[float]] = {name: [] for name in commands}
    for round_ in range(rounds + 1):
        for name, argv in commands.items():
            began = time.perf_counter()
            done = subprocess.run(
                list(argv), capture_output=True, env={**os.environ, **(env or {})}, check=False
            )
            took = time.perf_counter() - began
            if done.returncode != 0:
                raise RuntimeError(f"{name}: exit {done.returncode}: {done.stderr.decode()[-500:]}")
            if round_:
                walls[name].append(took)
    return [Timed(name, wall) for name, wall in walls.items()]


def print_table(title: str, rows: Sequence[Timed], *, base: Timed, goal: str) -> None:
    """Median, spread and ratio to `base`."""
    print(f"\n{title}   (goal: {goal})")
    print(f"  {'':<44}{'median ms':>10}{'min':>8}{'max':>8}{'ratio':>8}")
    for row in rows:
        low, high = min(row.wall_s) * 1000, max(row.wall_s) * 1000
        print(
            f"  {row.name:<44}{row.median_s * 1000:>10.0f}{low:>8.0f}{high:>8.0f}"
            f"{row.ratio_to(base):>8.2f}"
        )
