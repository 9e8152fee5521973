"""check on this machine: every mistake in one list, also those of secrets and of Slurm."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clusterlm.cli.mistakes import find_mistakes
from clusterlm.cluster.job_question import JobQuestion
from tests.cluster.remote.conftest import SLURM

TEXT = """
name: x
cluster: slurm
resources: {partition: gpuu, time: soon}
train: {command: [run], seeed: 1}
secrets: [NOT_SET_ANYWHERE]
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(SLURM, tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("CLUSTERLM_CONFIG", str(tmp_path / "clusters.yaml"))
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path / "runs"))


def places(question: JobQuestion, path: Path) -> list[tuple[str, int | None]]:
    answer = find_mistakes(question, path / "job.yaml")
    return [(where, line) for where, _, line in answer.problems]


@pytest.mark.usefixtures("slurm")
def test_mistakes_of_file_secrets_and_slurm_come_together(tmp_path: Path) -> None:
    assert places(JobQuestion(text=TEXT), tmp_path) == [
        ("resources.time", 4),
        ("resources.partition", 4),
        ("train.seeed", 5),
        ("secrets", 6),
    ]


@pytest.mark.usefixtures("slurm")
def test_offline_asks_neither_the_cluster_nor_for_secrets(tmp_path: Path) -> None:
    question = JobQuestion(text=TEXT, asks_cluster=False, with_secrets=False)
    assert places(question, tmp_path) == [("resources.time", 4), ("train.seeed", 5)]


@pytest.mark.usefixtures("slurm")
def test_what_the_laptop_has_judged_is_left_to_it(tmp_path: Path) -> None:
    text = "name: x\ncluster: slurm\ntrain: {command: [./gone.py]}\n"
    assert places(JobQuestion(text=text), tmp_path) == [("train.command[0]", 3)]
    assert places(JobQuestion(text=text, judged=["train.command[0]"]), tmp_path) == []


def test_a_cluster_that_does_not_answer_is_told_beside_the_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CLUSTERLM_CONFIG", str(tmp_path / "clusters.yaml"))
    answer = find_mistakes(JobQuestion(text=TEXT), tmp_path / "job.yaml")
    assert "this machine has no sbatch" in answer.trouble
    assert [where for where, _, _ in answer.problems] == [
        "resources.time",
        "train.seeed",
        "secrets",
    ]
