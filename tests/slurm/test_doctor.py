"""doctor and `check` in front of a real Slurm."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterlm.spec.probe import Probe
from tests.bed.slurm import SlurmBed
from tests.slurm.conftest import User, counting, wait_until


class Doctor(User):
    """A user whose clusters.yaml and images lie with the rest."""

    runs_at: Path | None = None

    @property
    def env(self) -> dict[str, str]:
        env = {**super().env, "CLUSTERLM_CONFIG": str(self.home / "clusters.yaml")}
        env["CLUSTERLM_IMAGES_DIR"] = str(self.home / "images")
        if self.runs_at:
            env["CLUSTERLM_RUNS_DIR"] = str(self.runs_at)
        return env

    def looks(self, *words: str) -> tuple[Probe, subprocess.CompletedProcess[str]]:
        """`clusterlm doctor --json`: what it found, and how it ended."""
        done = self.types("doctor", "--json", *words)
        assert done.stdout, done.stderr
        return Probe.model_validate_json(done.stdout), done


@pytest.fixture
def user(slurm: SlurmBed, tmp_path: Path) -> Doctor:
    return Doctor(tmp_path, slurm)


@pytest.fixture
def node_local() -> Iterator[Path]:
    """A folder of which each node has its own: /dev/shm."""
    folder = Path("/dev/shm") / f"clusterlm-{uuid.uuid4().hex[:8]}"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_two_nodes_are_looked_at_and_what_they_are_is_kept(user: Doctor) -> None:
    probe, done = user.looks()
    assert done.returncode == 0
    assert [node.host for node in probe.nodes] == ["node1", "node2"], probe.notes
    assert all(node.interface == "eth0" and node.python for node in probe.nodes)
    assert probe.clock_skew_s is not None
    assert abs(probe.clock_skew_s) < 2
    runs, cache, images, python = probe.folders
    for folder in (runs, cache, images):
        assert (folder.visible, folder.fsync_rename) == (True, True)
        assert folder.fsync_rename_s is not None
    assert (python.visible, python.fsync_rename) == (True, None)
    assert probe.gpu_requests_accepted == ("gres", "gpus-per-node")
    assert json.loads((user.home / "probes" / "slurm.json").read_text())["nodes"]
    left = [p for p in user.home.rglob("*doctor*") if p.name != ".doctor"]
    assert left == [], "nothing stays behind"


def test_a_folder_that_each_node_has_for_itself_is_not_shared(
    user: Doctor, node_local: Path
) -> None:
    node_local.mkdir()
    probe, done = user.looks("--folder", str(node_local))
    assert done.returncode == 1
    assert probe.folders[-1].visible is False
    assert probe.folders[0].visible is True


def test_runs_that_nodes_cannot_see_are_found_out_without_a_log(
    user: Doctor, node_local: Path
) -> None:
    user.runs_at = node_local
    probe, done = user.looks("--wait", "60")
    assert done.returncode == 1
    assert probe.folders[0].visible is False
    assert probe.nodes == ()


def test_without_a_free_node_it_gives_up_and_takes_its_job_back(user: Doctor) -> None:
    for node in user.bed.nodes:
        user.bed.drain(node)
    probe, _ = user.looks("--wait", "6")
    assert probe.nodes == ()
    assert any("given up" in line for line in probe.notes)
    assert not user.bed.run(["squeue", "-h"]).stdout.strip()


def test_an_all_reduce_over_two_nodes_is_measured(user: Doctor) -> None:
    probe, _ = user.looks("--nodes-test")
    assert probe.nodes_test is not None
    assert probe.nodes_test.ok, probe.nodes_test.text
    assert probe.nodes_test.gb_per_s
    assert probe.nodes_test.gb_per_s > 0.001
    assert "7B" in probe.nodes_test.text


def test_check_proposes_a_time_that_really_starts_now(user: Doctor) -> None:
    def send(*words: str) -> str:
        argv = ["sbatch", "--parsable", "--output=/dev/null", "--exclusive", *words]
        done = user.bed.run([*argv, "--wrap=sleep 300"], check=True)
        return done.stdout.strip()

    send("--time=240", "-w", "node[1-2]")
    waiting = send("--time=1200", "--nodes=4")

    def planned() -> bool:
        argv = ["squeue", "-h", "-j", waiting, "-o", "%S"]
        return user.bed.run(argv).stdout.strip().startswith("20")

    wait_until(planned, 60, "a planned start", user)
    job = counting("big", 5, time="12h", exclusive=True)
    file = user.writes(job)
    done = user.types("check", file, "--starts")
    assert done.returncode == 0, done.stderr
    match = re.search(r"with resources\.time: (3:[345]\d:00) it starts now", done.stdout)
    assert match, done.stdout
    assert re.search(r"NODES +12:00:00 +6:00:00 +3:00:00 +1:30:00", done.stdout)
    assert re.search(r"2 +in \d.* now +now", done.stdout)
    # what was proposed is sent, and runs before the one that waits
    job_id = send(f"--time={match[1]}", "--nodes=2")

    def runs() -> bool:
        return "RUNNING" in user.bed.run(["squeue", "-h", "-j", job_id, "-o", "%T"]).stdout

    wait_until(runs, 30, "the smaller job to run", user)


def test_check_refuses_what_the_cluster_cannot_run(user: Doctor) -> None:
    file = user.writes(counting("greedy", 5, gpus_per_node=9))
    done = user.types("check", file)
    assert done.returncode == 2
    assert "resources.gpus_per_node  nodes of batch have 8 GPUs, not 9" in done.stderr
    # sbatch would say the same once more
    assert "sbatch" not in done.stdout + done.stderr
    file = user.writes(counting("odd", 5, constraint="nowhere"))
    done = user.types("check", file)
    assert done.returncode == 1
    assert "sbatch refuses it" in done.stdout
