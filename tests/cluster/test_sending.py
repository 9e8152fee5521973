"""What prepares data and model of a run: there already, in the making, or a job of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clusterlm.cluster import claims, launcher, sending
from clusterlm.cluster.launcher import Submitted
from clusterlm.data import whole
from clusterlm.node.files import read_json
from clusterlm.paths import CachePaths, RunPaths
from clusterlm.spec.job import Job
from tests.cluster.fake_host import FakeHost

DATA, MODEL, OTHER = "d" * 32, "a" * 32, "b" * 32


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str | None]]:
    """What is sent to Slurm: (phase, dependency); jobs are 100, 101, ... and never end."""
    found: list[tuple[str, str | None]] = []

    def submit(run: RunPaths, job: Job, phase: Any, dependency: str | None, **_: Any) -> Submitted:
        found.append((phase, dependency))
        return Submitted(phase, str(99 + len(found)), tasks=job.encode_tasks)

    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(launcher, "submit_to_slurm", submit)
    monkeypatch.setattr(sending, "claim_is_alive", lambda claim, host: True)
    return found


def prepare(
    tmp_path: Path, name: str, model: str | None, tasks: int = 1, key: str = "0" * 32
) -> Any:
    run = RunPaths(tmp_path / "runs" / name)
    run.root.mkdir(parents=True, exist_ok=True)
    data = {"tokenizer": {"name": "a/b"}, "block_size": 8, "tasks": tasks}
    source = {"kind": "text", "path": "/x"}
    job = Job.model_validate(
        {"name": "r", "cluster": "slurm", "data": data | {"sources": [source]}}
    )
    chain = sending.Chain(run, job, FakeHost(), key)
    return sending.prepare_data(chain, CachePaths.of(DATA, model))


def test_runs_that_need_the_same_data_and_model_share_one_job(
    sent: list[tuple[str, str | None]], tmp_path: Path
) -> None:
    hit, after, owner = prepare(tmp_path, "first", MODEL)
    assert (hit, after.job_id, owner) == (False, "100", None)
    hit, after, owner = prepare(tmp_path, "second", MODEL)
    assert (hit, after.job_id, owner) == (False, "100", "first")
    assert sent == [("preprocess", None)]


def test_another_model_of_the_same_data_is_made_behind_the_first_whatever_its_end(
    sent: list[tuple[str, str | None]], tmp_path: Path
) -> None:
    prepare(tmp_path, "first", None, tasks=4)
    assert sent == [("encode", None), ("preprocess", "afterok:100")]
    prepare(tmp_path, "second", MODEL, tasks=4)
    prepare(tmp_path, "third", OTHER)
    # no second array: what the first has encoded is used
    assert sent[2:] == [("preprocess", "afterany:101"), ("preprocess", "afterany:102")]
    # each has its own users: one that is cancelled takes no other with it
    for model, run in ((None, "first"), (MODEL, "second"), (OTHER, "third")):
        claim = read_json(CachePaths.of(DATA, model).claim) or {}
        assert claim["users"] == [run]
        assert claims.leave(CachePaths.of(DATA, model), run) == []


def test_data_that_is_there_without_its_model_needs_the_phase_and_no_array(
    sent: list[tuple[str, str | None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (whole, sending):
        monkeypatch.setattr(module, "why_not_whole", lambda *_: None)
    assert prepare(tmp_path, "plain", None, tasks=4)[0], "a hit"
    assert not prepare(tmp_path, "resized", MODEL, tasks=4)[0]
    assert sent == [("preprocess", None)]
