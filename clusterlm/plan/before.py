"""What a run of the job has measured: its speed, the most memory of a rank, the size of its model.

Read off the files of the run; nothing is started. The trainer writes `peak_memory` of the rank that
took most: on a GPU what torch reserved, without the GPU's context; on the CPU the whole process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from clusterlm.node.files import read_jsonl
from clusterlm.paths import RunPaths
from clusterlm.spec.job import Job

# the first of them hold the warming up
FEWEST_RATES = 3


@dataclass(frozen=True)
class Before:
    """A run of the same model.

    Attributes:
        run: its name.
        job: what it was asked.
        peak: bytes of the rank that took most, None when not measured.
        tokens_per_s: of all ranks, None when not measured.
        model: folder of the trained model, which need not be there.
    """

    run: str
    job: Job
    peak: float | None
    tokens_per_s: float | None
    model: Path

    def speed_holds_for(self, job: Job) -> bool:
        """As many ranks with as large a batch are as fast."""
        ranks = self.job.resources.world_size == job.resources.world_size
        return ranks and self.job.train.micro_batch_size == job.train.micro_batch_size


def read_before(run: RunPaths, job: Job) -> Before | None:
    """What the run has measured; None without one, or when it trained another model."""
    try:
        asked = Job.model_validate_json(run.spec.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if asked.model != job.model:
        return None
    rows, _ = read_jsonl(run.metrics)
    rates = [float(row["tokens_per_s"]) for row in rows if row.get("tokens_per_s")]
    settled = rates[len(rates) // 3 :] if len(rates) >= FEWEST_RATES else []
    return Before(
        run=run.name,
        job=asked,
        peak=max(
            (float(row["peak_memory"]) for row in rows if row.get("peak_memory")), default=None
        ),
        tokens_per_s=float(median(settled)) if settled else None,
        model=run.model,
    )
