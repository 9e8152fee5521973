"""What a rank is told: its place among the others, its files, its attempt (docs/architecture.md).

Read once from the environment; stop file, progress file and lease are read by `node.progress`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clusterlm.errors import TrainError
from clusterlm.paths import RunPaths
from clusterlm.spec.job import Job


@dataclass(frozen=True)
class Rank:
    """One process of the training.

    Attributes:
        attempt: number of this attempt; only grows.
        resume_from: checkpoint that the supervisor verified, None for a fresh start.
        cache: folder of the prepared data.
        only_measures: only the speed is wanted (`clusterlm scaling`): no evaluation, nothing saved.
    """

    run: RunPaths
    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    attempt: int
    checkpoints: Path
    model_dir: Path
    metrics_file: Path
    resume_from: Path | None
    cache: Path
    only_measures: bool = False

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @classmethod
    def read(cls, run_dir: Path, environ: Mapping[str, str]) -> Rank:
        """Read the environment that supervisor, agent and torchrun give."""
        run = RunPaths(run_dir)
        cache = environ.get("CLUSTERLM_CACHE")
        if not cache:
            raise TrainError("CLUSTERLM_CACHE is not set: the built-in trainer needs prepared data")
        resume_from = environ.get("CLUSTERLM_RESUME_FROM")
        if resume_from and not Path(resume_from).is_dir():
            raise TrainError(f"the checkpoint to resume from, {resume_from}, is not there")
        return cls(
            run=run,
            rank=int(environ.get("RANK", 0)),
            local_rank=int(environ.get("LOCAL_RANK", 0)),
            world_size=int(environ.get("WORLD_SIZE", 1)),
            local_world_size=int(environ.get("LOCAL_WORLD_SIZE", 1)),
            attempt=int(environ.get("CLUSTERLM_ATTEMPT") or 1),
            checkpoints=Path(environ.get("CLUSTERLM_CHECKPOINT_DIR") or run.checkpoints),
            model_dir=Path(environ.get("CLUSTERLM_MODEL_DIR") or run.model),
            metrics_file=Path(environ.get("CLUSTERLM_METRICS_FILE") or run.metrics),
            resume_from=Path(resume_from) if resume_from else None,
            cache=Path(cache),
            only_measures=environ.get("CLUSTERLM_ONLY_MEASURE") == "1",
        )


def trains_on_cpu(job: Job, environ: Mapping[str, str]) -> bool:
    """Whether the spec asks for no GPU; `env: {ACCELERATE_USE_CPU: "true"}` overrides it."""
    forced = environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}
    return forced or job.resources.gpus_per_node == 0


def prepare_libraries(job: Job, rank: Rank) -> None:
    """Set what torch and DeepSpeed read while they are imported; call it before importing them."""
    # loader workers are forked after the tokenizer was loaded, and nothing is tokenised here
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # an error's words shall be the last in the log, not torch's warning about its process group
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if not trains_on_cpu(job, os.environ):
        return
    os.environ["DS_ACCELERATOR"] = "cpu"
    # torchrun writes OMP_NUM_THREADS=1 into the environment when there is more than one rank
    by_torchrun = rank.local_world_size > 1 and os.environ.get("OMP_NUM_THREADS") == "1"
    if "OMP_NUM_THREADS" not in job.env and (by_torchrun or "OMP_NUM_THREADS" not in os.environ):
        os.environ["OMP_NUM_THREADS"] = str(threads_per_rank(rank.local_world_size))


def threads_per_rank(local_world_size: int) -> int:
    """Cores this process may use, shared by the ranks of the node."""
    return max(1, len(os.sched_getaffinity(0)) // local_world_size)
