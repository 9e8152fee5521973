"""The guard: of several jobs of one send one goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import submitit.core.submission

from clusterlm.paths import RunPaths
from clusterlm.supervise import batch_step
from clusterlm.supervise.owner import Owner, owner_of, take, token_of

TOKEN = token_of("0" * 32, "train")


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    paths = RunPaths(tmp_path / "run")
    paths.submitit.mkdir(parents=True)
    return paths


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the jobs that went on to submitit."""
    names: list[str] = []

    def process_job(folder: Path) -> None:
        names.append(batch_step.own_name(batch_step.os.environ))
        assert (folder / f"{names[-1]}_submitted.pkl").is_file()

    monkeypatch.setattr(submitit.core.submission, "process_job", process_job)
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    return names


def test_the_first_job_goes_on_and_so_does_its_requeue(
    run: RunPaths, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for job in ("71", "72", "71", "73"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        batch_step.main(str(run.root), "train", TOKEN)
    assert begun == ["71", "71"]
    # a resume has a token of its own
    batch_step.main(str(run.root), "train", token_of("1" * 32, "train"))
    assert begun[-1] == "73"


def test_tasks_of_two_arrays_never_mix(
    run: RunPaths, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = token_of("0" * 32, "encode")
    jobs = [("80", 2), ("71", 0), ("80", 0), ("71", 1), ("80", 1), ("71", 2), ("80", 2)]
    for number, (array, task) in enumerate(jobs):
        monkeypatch.setenv("SLURM_JOB_ID", str(90 + number))
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", array)
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        batch_step.main(str(run.root), "encode", token)
    assert begun == ["80_2", "80_0", "80_1", "80_2"]
    assert owner_of(run, token) == Owner("80")


def test_the_word_of_the_submitting_side_goes_before_a_start(
    run: RunPaths, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    take(run, TOKEN, Owner("72"))
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    batch_step.main(str(run.root), "train", TOKEN)
    assert begun == []
    assert list(run.submitit.iterdir()) == []


def test_a_deleted_run_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    with pytest.raises(FileNotFoundError):
        batch_step.main(str(tmp_path / "gone"), "train", TOKEN)
