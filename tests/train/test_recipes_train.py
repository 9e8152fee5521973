"""Every recipe of jobs/ trains: its data prepared, two steps, the model saved and opened again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from clusterlm.data.fingerprint import describe
from clusterlm.data.model_key import model_key
from clusterlm.data.model_stage import ModelStage
from clusterlm.data.preprocess import preprocess
from clusterlm.spec.load import load_job
from tests.train.forked import Forks
from tests.train.launching import ROOT, Run

JOBS = ROOT / "jobs"
# needs a cluster; needs minutes of data
LEFT_OUT = {"cluster", "quickstart"}
SMALL = ["train.max_steps=2", "train.logging_steps=1", "resources.processes_per_node=1"]


class RecipeRun(Run):
    """A run of a job that was loaded from its YAML."""

    spec: dict[str, Any]
    resized_model: str | None

    def _spec(self) -> dict[str, Any]:
        lock = {"resized_model": self.resized_model}
        (self.root / "lock.json").write_text(json.dumps(lock))
        return self.spec

    def _environment(self, *attempt: Any) -> dict[str, str]:
        # where a resized model is looked for
        return super()._environment(*attempt) | {"CLUSTERLM_CACHE_DIR": str(self.cache.parent)}


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLUSTERLM_CACHE_DIR", str(folder))
        yield folder


def train(name: str, folder: Path, caches: Path, forks: Forks) -> tuple[RecipeRun, list[int]]:
    job = load_job(JOBS / f"{name}.yaml", SMALL).job
    assert job.data is not None
    cache = caches / name
    parts = describe(job.data)
    key = model_key(job, parts)
    model = ModelStage(job, key, parts, caches, lambda progress: None, lambda line: None)
    preprocess(job.data, cache, workers=1, report=lambda progress: None, model=model)
    run = RecipeRun(folder / name, cache, ranks=1)
    run.spec, run.resized_model = job.model_dump(mode="json"), key
    return run, run.train_forked(forks)


RECIPES = sorted({path.stem for path in JOBS.glob("*.yaml")} - LEFT_OUT - {"qlora"})


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains(name: str, tmp_path: Path, caches: Path, forks: Forks) -> None:
    run, codes = train(name, tmp_path, caches, forks)
    assert codes == [0], run.output
    assert sorted(run.losses()) == [1, 2]
    files = list((run.root / "model").glob("*.safetensors"))
    assert len(files) == 1
    with safe_open(files[0], framework="pt") as tensors:
        assert list(tensors.keys())


def test_qlora_says_that_it_needs_a_gpu(tmp_path: Path, caches: Path, forks: Forks) -> None:
    run, codes = train("qlora", tmp_path, caches, forks)
    assert codes == [2]
    assert "sees no GPU on this node" in run.output


def test_ranks_of_a_json_stand_in_the_run_itself(tmp_path: Path) -> None:
    job = load_job(JOBS / "dora.yaml").job
    assert job.model is not None
    assert job.model.adapter is not None
    spec = json.loads(job.model_dump_json())
    assert spec["model"]["adapter"]["rank_pattern"] == json.loads(
        (JOBS / "samples" / "ranks.json").read_text()
    )
