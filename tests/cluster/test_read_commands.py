from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.fake_host import NO_DATABASE, UNKNOWN_ID, UNREACHABLE
from tests.cluster.run_folders import RunFolder, squeue_line

FAKES = Path(__file__).parent / "fakes"
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def slurm_says(tmp_path: Path) -> Callable[..., None]:
    folder = tmp_path / "fakes"
    folder.mkdir()

    def says(program: str, out: str = "", err: str = "", code: int = 0) -> None:
        (folder / f"{program}.out").write_text(out)
        (folder / f"{program}.err").write_text(err)
        (folder / f"{program}.rc").write_text(str(code))

    return says


@pytest.fixture
def clusterlm(tmp_path: Path, slurm_says: Callable[..., None]) -> Command:
    env = {**os.environ, "PATH": f"{FAKES}:{os.environ['PATH']}", "FAKES": str(tmp_path / "fakes")}
    env["CLUSTERLM_RUNS_DIR"] = str(tmp_path / "runs")

    def run(*args: str, shell: str = "") -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-W", "error", "-m", "clusterlm", *args]
        if shell:
            argv = ["bash", "-c", f'set -o pipefail; "$@" {shell}', "bash", *argv]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)

    return run


def calls(tmp_path: Path) -> list[str]:
    file = tmp_path / "fakes" / "calls"
    return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []


def test_status_of_many_runs_makes_two_calls(
    tmp_path: Path, clusterlm: Command, slurm_says: Callable[..., None]
) -> None:
    for number in range(30):
        run = RunFolder(tmp_path / "runs", f"run{number}")
        run.submitted(job_id=str(100 + number))
    slurm_says("squeue", "".join(squeue_line(str(100 + n), "PENDING") for n in range(20)))
    done = clusterlm("status", "--json")
    assert done.stderr == ""
    assert len(json.loads(done.stdout)) == 30
    assert calls(tmp_path) == ["squeue", "sacct"]
    assert clusterlm("status").returncode == 0


def test_status_without_a_scheduler_that_answers_is_no_traceback(
    tmp_path: Path, clusterlm: Command, slurm_says: Callable[..., None]
) -> None:
    run = RunFolder(tmp_path / "runs")
    run.event("submitted", ago=900.0, phase="train", job_id="11", cluster="slurm")
    slurm_says("squeue", err=UNREACHABLE, code=1)
    slurm_says("sacct", err=NO_DATABASE, code=1)
    for command in (("status",), ("why", "run"), ("status", "run", "--json")):
        done = clusterlm(*command)
        assert (done.returncode, done.stderr) == (0, "")
        assert "UNKNOWN" in done.stdout


def test_old_runs_are_left_out_unless_wanted(tmp_path: Path, clusterlm: Command) -> None:
    for number in range(25):
        RunFolder(tmp_path / "runs", f"run{number}").ended()
    assert "and 5 more that have ended: --all" in clusterlm("status").stdout
    assert clusterlm("status", "--all").stdout.count("DONE") == 25
    assert len(json.loads(clusterlm("status", "--json").stdout)) == 25


def test_an_unknown_run_is_a_mistake_with_a_near_name(tmp_path: Path, clusterlm: Command) -> None:
    RunFolder(tmp_path / "runs", "quickstart")
    for command in (("status", "quikstart"), ("logs", "quikstart"), ("why", "quikstart")):
        done = clusterlm(*command)
        assert done.returncode == 2
        assert "did you mean `quickstart`?" in done.stderr
        assert "Traceback" not in done.stderr


def test_logs_into_head_end_without_a_word(tmp_path: Path, clusterlm: Command) -> None:
    run = RunFolder(tmp_path / "runs")
    attempt = run.training()
    (attempt.logs / "rank0.log").write_text("".join(f"step {i} {'x' * 200}\n" for i in range(9000)))
    done = clusterlm("logs", "run", "-n", "9000", shell="| head -n 1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[rank 0] step 0 ")
    assert clusterlm("logs", "run", "-n", "2").stdout.count("\n") == 2


def test_logs_follow_ends_with_the_run(tmp_path: Path, clusterlm: Command) -> None:
    run = RunFolder(tmp_path / "runs")
    attempt = run.training()
    (attempt.logs / "rank0.log").write_text("one\n")
    run.ended()
    done = clusterlm("logs", "run", "-f")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "[rank 0] one"
    assert "run is DONE" in done.stdout


def test_logs_of_a_run_that_has_none_say_where_to_look(tmp_path: Path, clusterlm: Command) -> None:
    run = RunFolder(tmp_path / "runs", "guest")
    run.event("shares", phase="preprocess", job_id="5", cluster="slurm", run="owner")
    assert "clusterlm logs owner" in clusterlm("logs", "guest").stderr
    RunFolder(tmp_path / "runs", "new").submitted()
    assert "clusterlm why new" in clusterlm("logs", "new").stderr


def test_why_prints_json(
    tmp_path: Path, clusterlm: Command, slurm_says: Callable[..., None]
) -> None:
    run = RunFolder(tmp_path / "runs")
    run.training()
    run.beat(ago=500.0)
    slurm_says("squeue", err=UNKNOWN_ID, code=1)
    found = json.loads(clusterlm("why", "run", "--json").stdout)
    assert (found["state"], found["cause"]) == ("STOPPED", "VANISHED")


def test_status_watch_of_an_ended_run_has_the_exit_code_of_its_end(
    tmp_path: Path, clusterlm: Command
) -> None:
    run = RunFolder(tmp_path / "runs")
    run.training()
    run.ended("STOPPED", "HANG")
    done = clusterlm("status", "run", "--watch")
    assert done.returncode == 1
    assert "next: clusterlm why run" in done.stdout
