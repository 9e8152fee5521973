"""What a run has measured, beside what the plan says of the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clusterlm.plan.gpus import GIB
from clusterlm.plan.memory import Memory, taken_bytes
from clusterlm.plan.setup import Setup


@dataclass(frozen=True)
class Measured:
    """By a run with these settings; None what it has not measured.

    Attributes:
        run: its name.
        peak: bytes of the rank that took most: torch's on a GPU, of the process on the CPU.
        tokens_per_s: of all ranks.
    """

    run: str
    peak: float | None
    tokens_per_s: float | None

    def line(self, setup: Setup, memory: Memory) -> str:
        """For people."""
        parts = []
        if self.peak is not None:
            planned = taken_bytes(setup, memory)
            parts.append(
                f"{self.peak / GIB:.2f} GiB of a {'process' if setup.on_cpu else 'rank'} at most, "
                f"planned {planned / GIB:.2f} ({planned / self.peak - 1:+.0%})"
            )
        if self.tokens_per_s is not None:
            parts.append(f"{self.tokens_per_s / setup.ranks:,.0f} tokens/s per rank")
        return f"measured  run {self.run}: {', '.join(parts)}"

    def as_json(self, setup: Setup, memory: Memory) -> dict[str, Any]:
        """For programs."""
        planned = taken_bytes(setup, memory)
        return {
            "run": self.run,
            "peak_bytes": self.peak,
            "planned_bytes": planned,
            "tokens_per_s": self.tokens_per_s,
        }
