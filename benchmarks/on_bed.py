"""A Slurm test bed for the benchmarks, with folders of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bed.fixture import start_free_bed
from tests.bed.slurm import SlurmBed


@dataclass(frozen=True)
class Place:
    """Where a benchmark runs."""

    bed: SlurmBed
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            **self.bed.env(),
            "CLUSTERLM_RUNS_DIR": str(self.folder / "runs"),
            "CLUSTERLM_CACHE_DIR": str(self.folder / "cache"),
        }


@contextmanager
def bed() -> Iterator[Place]:
    """A bed that is up, and a folder that all its nodes see."""
    with tempfile.TemporaryDirectory(prefix="clusterlm-bench-") as folder:
        slurm = start_free_bed()
        try:
            yield Place(slurm, Path(folder))
        finally:
            slurm.stop()
