"""dry-run and submit with an image that is really built, and really trains, in a real docker."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bed.docker import DockerBed
from tests.bed.waiting import PATIENCE
from tests.person import Person

STORY = "once there was a clerk who counted the words of every book in the town\n"
TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def desk(docker: DockerBed, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    """One desk for all tests of this file: the image is built once."""
    # `Person.env` is made of this process's environment
    monkeypatch.setenv("CLUSTERLM_IMAGES_DIR", str(home / "images"))
    yield Person(home)
    docker.remove_containers()


@pytest.fixture
def job(desk: Person, train_base: str, wheelhouse: Path) -> dict[str, Any]:
    corpus = desk.home / "corpus"
    corpus.mkdir(exist_ok=True)
    lines = [json.dumps({"text": f"{n} {STORY * (n % 5 + 1)}"}) for n in range(400)]
    (corpus / "a.jsonl").write_text("\n".join(lines))
    return {
        "name": "story",
        "cluster": "slurm",
        "image": {"base": train_base, "wheelhouse": str(wheelhouse)},
        "resources": {"nodes": 4, "gpus_per_node": 8},
        "data": {
            "tokenizer": {"train": {"vocab_size": 300}},
            "block_size": 64,
            "sources": [{"kind": "text", "path": str(corpus)}],
            "validation": {"fraction": 0.05},
        },
        "model": {"from_scratch": {"class": "LlamaForCausalLM", "config": TINY}},
        "train": {"max_steps": 500, "global_batch_size": 1024, "precision": "fp32"},
    }


def left_behind(desk: Person) -> list[str]:
    folder = desk.home / "runs" / ".dry-runs"
    return [p.name for p in folder.iterdir()] if folder.exists() else []


def wait(is_so: Callable[[], object], what: str, timeout: float = 60) -> None:
    until = time.monotonic() + timeout * PATIENCE
    while not is_so():
        assert time.monotonic() < until, f"waited {timeout:.0f} s for {what}"
        time.sleep(0.1)


def test_a_job_for_32_gpus_is_tried_here_in_its_image(
    desk: Person, docker: DockerBed, job: dict[str, Any]
) -> None:
    file = desk.writes(job)
    refused = desk.types("dry-run", file, "--gpus", "none", "--no-build")
    assert refused.returncode == 2
    assert "clusterlm build-image" in refused.stderr
    done = desk.types("dry-run", file, "--gpus", "none", timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 steps by 2 ranks on 1 node(s)" in done.stdout
    assert "of the base" in done.stdout
    assert "owned by you" in done.stdout
    # a sample: far fewer documents than there are
    assert "4 nodes of 8 ranks (here 1 of 2)" in done.stdout
    assert "InfiniBand" in done.stdout
    assert left_behind(desk) == []
    assert not docker.run("ps", "--all", "--quiet").stdout.split()


def test_two_containers_train_as_two_nodes(desk: Person, job: dict[str, Any]) -> None:
    words = ["--gpus", "none", "--nodes", "2", "--steps", "3", "--no-build"]
    done = desk.types("dry-run", desk.writes(job), *words, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 steps by 4 ranks on 2 node(s)" in done.stdout


def test_ctrl_c_leaves_no_container_and_no_folder(
    desk: Person, docker: DockerBed, job: dict[str, Any]
) -> None:
    dry = desk.starts("dry-run", desk.writes(job), "--gpus", "none", "--steps", "100000")
    wait(lambda: docker.run("ps", "--quiet").stdout.split(), "a container")
    time.sleep(3)
    dry.send_signal(signal.SIGINT)
    text, _ = dry.communicate(timeout=60)
    assert dry.returncode == 130, text
    assert "Traceback" not in text
    wait(lambda: not docker.run("ps", "--all", "--quiet").stdout.split(), "no container", 20)
    assert left_behind(desk) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_ends_it_as_ctrl_c_does(
    desk: Person, docker: DockerBed, job: dict[str, Any], number: signal.Signals
) -> None:
    dry = desk.starts("dry-run", desk.writes(job), "--gpus", "none", "--steps", "100000")
    wait(lambda: docker.run("ps", "--quiet").stdout.split(), "a container")
    dry.send_signal(number)
    text, _ = dry.communicate(timeout=60)
    assert dry.returncode == 130, text
    wait(lambda: not docker.run("ps", "--all", "--quiet").stdout.split(), "no container", 20)
    assert left_behind(desk) == []


def test_the_next_dry_run_sweeps_up_after_one_that_was_killed(
    desk: Person, docker: DockerBed, job: dict[str, Any]
) -> None:
    dry = desk.starts("dry-run", desk.writes(job), "--gpus", "none", "--steps", "100000")
    wait(lambda: docker.run("ps", "--quiet").stdout.split(), "a container")
    dry.kill()
    dry.communicate()
    assert len(left_behind(desk)) == 1
    done = desk.types("dry-run", desk.writes(job), "--gpus", "none", timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert left_behind(desk) == []
    wait(lambda: not docker.run("ps", "--all", "--quiet").stdout.split(), "no container", 20)


def test_what_fails_is_kept_and_the_command_to_read_it_is_said(
    desk: Person, job: dict[str, Any]
) -> None:
    own = {key: job[key] for key in ("cluster", "image", "resources")}
    script = desk.home / "fails.py"
    script.write_text("import transformers\nraise ValueError('the teapot is empty')\n")
    own |= {"name": "teapot", "train": {"command": [str(script)]}}
    done = desk.types("dry-run", desk.writes(own), "--gpus", "none", timeout=100)
    assert done.returncode == 1
    assert "the teapot is empty" in done.stderr
    assert "clusterlm why teapot" in done.stderr
    assert len(left_behind(desk)) == 1


def test_gpus_that_are_not_here_are_told_with_what_to_do(desk: Person, job: dict[str, Any]) -> None:
    for words in (["--gpus", "all"], ["--gpus", "0,1"], []):
        done = desk.types("dry-run", desk.writes(job), *words)
        assert done.returncode == 2, done.stdout
        assert "--gpus none" in done.stderr
    done = desk.types("dry-run", desk.writes(job), "--gpus", "0;rm")
    assert "is not accepted" in done.stderr


def test_submit_runs_in_the_image_and_locks_what_it_ran_in(
    desk: Person, docker: DockerBed, job: dict[str, Any]
) -> None:
    here = {**job, "name": "here", "cluster": "local", "resources": {"processes_per_node": 2}}
    here["train"] = {"max_steps": 4, "precision": "fp32"}
    told = desk.submits(here, "--no-build")
    wait(lambda: desk.events("here", "ended"), "its end", 120)
    assert desk.status("here")["state"] == "DONE", desk.types("why", "here").stdout
    locked = json.loads(desk.run("here").lock.read_text())["image"]
    assert locked["runtime"] == "docker"
    stored = docker.run("inspect", "--format", "{{.Id}}", locked["tag"]).stdout.strip()
    assert locked["image_id"] == stored
    base = docker.run("inspect", "--format", "{{.Id}}", job["image"]["base"]).stdout.strip()
    assert locked["base_digest"] == base
    model = desk.run("here").model / "model.safetensors"
    assert model.stat().st_uid == os.getuid()
    assert told["run"] == "here"

    # an image that a run goes on with is not removed by the way
    listed = json.loads(desk.types("images", "ls", "--json").stdout)
    assert [row["recipe"] for row in listed] == [locked["recipe"]]
