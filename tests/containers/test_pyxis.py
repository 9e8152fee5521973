"""A run in a container of (a stand-in for) pyxis, on a real Slurm."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from clusterlm.cluster.host import LocalHost
from clusterlm.cluster.preflight import has_pyxis
from tests.bed.slurm import SlurmBed
from tests.containers.starting import COUNTING, LOOK, start
from tests.containers.tiny_image import lay_tiny_image
from tests.slurm.conftest import User

FAKES = Path(__file__).parent / "fakes"


@pytest.fixture
def user(slurm: SlurmBed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    person = User(tmp_path, slurm)
    for name, value in {**person.env, "SECRET_OF_THE_SHELL": "s3cret", "PYTHONPATH": "/x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{FAKES}:{os.environ['PATH']}")
    return person


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = tmp_path / "image.sqsh"
    lay_tiny_image(root)
    (root / "etc").mkdir()
    # what the image has goes before what is exported, but for what the supervisor sets
    lines = ["PATH=/of/the/image", "CLUSTERLM_NODES=99", "MASTER_ADDR=hook", "WORLD_SIZE=77"]
    (root / "etc/environment").write_text("\n".join(lines) + "\n")
    return root


def job_of(name: str, *command: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "cluster": "slurm",
        "resources": {"nodes": 2, "time": "10m"},
        "recovery": {"stop_grace": "20s", "heartbeat_timeout": "12s"},
        "train": {"command": list(command)},
        "image": {"runtime": "pyxis"},
        **changes,
    }


def test_two_nodes_train_in_the_image_and_see_what_they_should(user: User, image: Path) -> None:
    job = job_of("inside", str(LOOK), "a b", env={"NCCL_DEBUG": "INFO", "NOTE": "it's $HOME"})
    run = start(user.home, job, str(image))
    assert user.wait_for_end("inside")["state"] == "DONE", user.types("why", "inside").stdout
    seen = [json.loads((run.root / f"look-{rank}.json").read_text()) for rank in (0, 1)]
    for rank, look in enumerate(seen):
        env = look["env"]
        assert (env["RANK"], env["WORLD_SIZE"], env["CLUSTERLM_NODES"]) == (str(rank), "2", "2")
        assert env["MASTER_ADDR"] != "hook"
        assert (env["NCCL_DEBUG"], env["NOTE"], env["OF_THE_IMAGE"]) == (
            *("INFO", "it's $HOME"),
            "it's here",
        )
        assert env["PATH"] == "/usr/local/bin:/usr/bin:/bin"
        assert env["PYTHONPATH"] == "/opt/clusterlm/site"
        assert "SECRET_OF_THE_SHELL" not in env
        assert look["argv"] == ["a b"]
        assert look["cwd"] == str(run.root)
        assert look["writable"] == [env["HOME"], str(run.root)]
        assert env["HOME"].startswith("/tmp/clusterlm-")
        # all of /tmp is mounted, and a clone of the project may lie there
        assert not look["script_is_writable"] or str(LOOK).startswith("/tmp/")
        assert "opt" in look["root"]
        assert "srv" not in look["root"]
    assert "image: clusterlm" in (run.attempt("train", 1).logs / "step.log").read_text()


def test_pyxis_is_probed_before_it_is_relied_on(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert has_pyxis(LocalHost())
    monkeypatch.setenv("PATH", os.environ["PATH"].removeprefix(f"{FAKES}:"))
    assert not has_pyxis(LocalHost())


def test_a_missing_image_ends_the_run_with_the_line_that_says_so(user: User, image: Path) -> None:
    start(user.home, job_of("absent", str(LOOK), resources={"nodes": 1}), f"{image}.gone")
    end = user.wait_for_end("absent")
    assert (end["state"], end["cause"]) == ("STOPPED", "IMAGE")
    why = user.types("why", "absent").stdout
    assert "[ERROR] No such file or directory" in why
    assert "clusterlm build-image" in why
    assert len(user.events("absent", "attempt_started")) == 1


def test_nodes_that_ignore_the_image_are_found_out(user: User, image: Path) -> None:
    (image / "IGNORED").touch()
    start(user.home, job_of("bare", str(LOOK)), str(image))
    end = user.wait_for_end("bare")
    assert end["cause"] in ("IMAGE", "IMAGE_ON_NODE")
    assert "not inside an image" in end["evidence"]


def test_a_node_without_the_image_is_left_out(user: User, image: Path) -> None:
    """A spare takes its place."""
    local = Path("/dev/shm") / f"{user.home.name}.sqsh"
    for node in ("node1", "node3"):
        link = ["srun", "-N1", f"--nodelist={node}", "ln", "-s", str(image), str(local)]
        assert user.bed.run(link).returncode == 0
    resources = {"nodes": 2, "spares": 1, "time": "10m"}
    command = [str(COUNTING), "5", "--pace", "0.05"]
    start(user.home, job_of("spare", *command, resources=resources), str(local))
    assert user.wait_for_end("spare")["state"] == "DONE", user.types("why", "spare").stdout
    ends = user.events("spare", "attempt_ended")
    assert [(e["cause"], e["host"]) for e in ends] == [("IMAGE_ON_NODE", "node2"), ("DONE", None)]
    assert user.events("spare", "attempt_started")[1]["nodes"] == ["node1", "node3"]


def test_a_cancel_reaches_the_ranks_in_their_containers_and_they_save(
    user: User, image: Path
) -> None:
    run = start(user.home, job_of("saves", str(COUNTING), "500"), str(image))
    user.wait_for_step("saves", 3)
    done = user.types("cancel", "saves")
    assert "saved" in done.stdout, done.stderr
    assert list(run.checkpoints.glob("checkpoint-*"))


def test_another_clusterlm_in_the_image_stops_before_training(user: User, image: Path) -> None:
    version = image / "opt/clusterlm/site/clusterlm/__init__.py"
    version.write_text('__version__ = "0.0.1"\n')
    start(user.home, job_of("old", str(LOOK)), str(image))
    end = user.wait_for_end("old")
    assert (end["state"], end["cause"]) == ("STOPPED", "IMAGE")
    assert "it holds clusterlm 0.0.1" in end["evidence"]
    assert "clusterlm resume old" in end["evidence"]
