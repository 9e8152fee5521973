"""The plan's peak memory against that of real trainings, within 15 %."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory import ADAPTER, ZERO2, job_of, measure, predict, prepare

# a busy machine takes minutes for two ranks
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLUSTERLM_CACHE_DIR", str(folder))
        return prepare(folder / "data")


@pytest.mark.parametrize(
    ("size", "train", "ranks"),
    [("8M", {}, 1), ("44M", ADAPTER, 1), ("44M", ZERO2, 2)],
    ids=["full", "adapter", "zero2"],
)
def test_the_plan_is_within_15_percent_of_the_measured_peak(
    tmp_path: Path, cache: Path, size: str, train: dict[str, Any], ranks: int
) -> None:
    job = job_of(size, train, ranks)
    measured = measure(tmp_path / "run", cache, job)["allocator"]
    assert predict(job) == pytest.approx(measured, rel=0.15)
