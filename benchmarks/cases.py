"""What is run, and what came of it over the rounds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from benchmarks.page import Page
from benchmarks.programs import Program, Ran

BASE = "run_clm"
OURS = "ours"

SLOW = (
    Program(BASE, "run_clm"),
    Program("slides, batched=False", "one_by_one"),
    Program("datatrove", "datatrove_tokens"),
    Program("Megatron, pool", "pool"),
    Program("run_clm + gigatoken", "run_clm", {"GIGATOKEN": "1"}),
)
OURS_SLOW = Program("ours, engine tokenizers", "ours", {"ENGINE": "tokenizers"})
MEGATRON_FAST = Program("Megatron, fast (in memory)", "in_memory")
FAST = (
    MEGATRON_FAST,
    Program("ours, engine gigatoken", "ours", {"ENGINE": "gigatoken"}),
    Program("ours, engine fastokens", "ours", {"ENGINE": "fastokens"}),
)
# what the goals of the data engine compare with, and by how much
GOALS = {
    BASE: 30,
    "run_clm + gigatoken": 10,
    "datatrove": 25,
    "Megatron, fast (in memory)": 1.3,
}


@dataclass(frozen=True)
class Bench:
    """Where to tell, and with what to run."""

    page: Page
    python: Path
    tokenizers: Path
    processes: int


@dataclass(frozen=True)
class Case:
    """A program on a corpus, all its rounds."""

    program: Program
    corpus: Path
    runs: list[Ran]

    @property
    def megabytes(self) -> float:
        return self.corpus.stat().st_size / 1e6

    @property
    def rates(self) -> list[float]:
        """MB of jsonl a second, without imports."""
        return [self.megabytes / ran.work_s for ran in self.runs]

    @property
    def whole_rates(self) -> list[float]:
        """MB a second of the process from start to exit."""
        return [self.megabytes / ran.wall_s for ran in self.runs]

    def ratio_to(self, other: Case) -> float:
        """Median of the ratios round by round, without imports on both sides."""
        pairs = zip(self.rates, other.rates, strict=True)
        return statistics.median(a / b for a, b in pairs)

    def whole_ratio_to(self, other: Case) -> float:
        """The same of whole processes."""
        pairs = zip(self.whole_rates, other.whole_rates, strict=True)
        return statistics.median(a / b for a, b in pairs)


@dataclass(frozen=True)
class Ratios:
    """How many times faster ours is: on all text, of whole processes, on the rival's own text."""

    work: float
    whole: float
    same_text: float | None


def mb_of(path: Path) -> str:
    """Its size in words."""
    return f"{path.stat().st_size / 1e6:.0f} MB"
