"""A local run in a real docker: what is seen inside, whose files they are, what is left behind."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from clusterlm.paths import RunPaths
from clusterlm.supervise.allocation import LOCAL_GPUS, LOCAL_NODES
from tests.bed.docker import DockerBed
from tests.bed.waiting import PATIENCE
from tests.containers.starting import COUNTING, LOOK, start
from tests.containers.tiny_image import lay_tiny_image
from tests.person import Person

IMAGE = "clusterlm-test:tiny"


@pytest.fixture(scope="module")
def image(docker_bed: DockerBed, fake_base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    context = tmp_path_factory.mktemp("tiny")
    lay_tiny_image(context)
    # an entrypoint that would end it at once must not run
    text = f'FROM {fake_base}\nCOPY opt /opt\nENTRYPOINT ["/bin/false"]\n'
    (context / "Dockerfile").write_text(text)
    docker_bed.run("build", "--quiet", "--network", "host", "--tag", IMAGE, str(context))
    return IMAGE


@pytest.fixture
def desk(
    docker: DockerBed, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Person]:
    person = Person(tmp_path_factory.mktemp("desk"))
    for name, value in person.env.items():
        monkeypatch.setenv(name, value)
    yield person
    for process in processes(person):
        process.kill()
    docker.remove_containers()


def processes(desk: Person) -> list[psutil.Process]:
    """Everything of this desk's runs that lives, in containers too."""
    rows = psutil.process_iter(["cmdline"])
    return [p for p in rows if str(desk.home) in " ".join(p.info["cmdline"] or [])]


def wait(is_so: Callable[[], object], what: str, timeout: float = 60) -> None:
    until = time.monotonic() + timeout * PATIENCE
    while not is_so():
        assert time.monotonic() < until, f"waited {timeout:.0f} s for {what}"
        time.sleep(0.1)


def job_of(name: str, *command: str, **changes: Any) -> dict[str, Any]:
    job = {"name": name, "train": {"command": list(command)}, "image": {"runtime": "docker"}}
    return {**job, "recovery": {"stop_grace": "20s"}, **changes}


def wait_for_end(desk: Person, name: str) -> dict[str, Any]:
    wait(lambda: desk.events(name, "ended"), f"the end of {name}")
    return desk.events(name, "ended")[0]


def a_step(run: RunPaths) -> Callable[[], bool]:
    return run.attempt("train", 1).progress.exists


def containers(docker: DockerBed) -> list[str]:
    return docker.run("ps", "--all", "--quiet").stdout.split()


def test_what_a_rank_sees_in_docker(
    desk: Person, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SHELL", "s3cret")
    extra = desk.home / "extra"
    extra.mkdir()
    mounts = {"runtime": "docker", "mounts": [f"{extra}:/inside:ro"]}
    job = job_of("inside", str(LOOK), env={"NOTE": "it's $HOME"}, image=mounts)
    run = start(desk.home, job, image)
    assert wait_for_end(desk, "inside")["state"] == "DONE", desk.types("why", "inside").stdout
    look = json.loads((run.root / "look-0.json").read_text())
    env = look["env"]
    assert (env["NOTE"], env["OF_THE_IMAGE"]) == ("it's $HOME", "it's here")
    assert env["PATH"] == "/usr/local/bin:/usr/bin:/bin"
    assert "SECRET_OF_THE_SHELL" not in env
    assert look["python"] == "/usr/bin/python3"
    assert look["uid"] == os.getuid()
    assert set(os.getgroups()) <= {*look["groups"], os.getgid()}
    assert look["writable"] == [env["HOME"], str(run.root)]
    assert look["cwd"] == str(run.root)
    assert "inside" in look["root"]
    assert look["umask"] == 0o077
    assert (run.root / "look-0.json").stat().st_uid == os.getuid()


def test_two_local_nodes_are_two_containers_and_one_that_fails_ends_both(
    desk: Person, docker: DockerBed, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOCAL_NODES, "2")
    words = ["12", "--pace", "0.1", "--save-every", "2", "--fail-rank", "1", "--fail-at", "5"]
    run = start(desk.home, job_of("two", str(COUNTING), *words, "--once"), image, nodes=2)
    wait(lambda: len(containers(docker)) == 2, "two containers")
    assert wait_for_end(desk, "two")["state"] == "DONE", desk.types("why", "two").stdout
    started = desk.events("two", "attempt_started")
    assert [len(set(e["nodes"])) for e in started] == [2, 2]
    assert started[1]["resume_step"] == 4
    assert {p.name for p in run.attempt("train", 2).heartbeats.glob("node*")} == {
        *("node0.json", "node1.json")
    }
    wait(lambda: not containers(docker), "the end of every container")


@pytest.mark.parametrize("victim", ["supervisor", "script", "client"])
def test_nothing_stays_when_something_outside_is_killed(
    desk: Person, docker: DockerBed, image: str, victim: str
) -> None:
    run = start(desk.home, job_of("orphan", str(COUNTING), "900"), image)
    wait(a_step(run), "a step")
    marks = {
        "supervisor": "clusterlm.supervise.start",
        "script": "container.sh",
        "client": "docker run",
    }
    first, killed = set(containers(docker)), 0
    for process in processes(desk):
        words = " ".join(process.cmdline())
        if marks[victim] in words and (victim != "script" or words.startswith("bash")):
            process.send_signal(signal.SIGKILL)
            killed += 1
    assert killed
    wait(lambda: not first & set(containers(docker)), "the end of the container")
    desk.types("cancel", "orphan", "--now")
    wait(lambda: not containers(docker) and not processes(desk), "the end of everything")


def test_a_script_that_is_killed_before_there_is_an_agent_leaves_no_container(
    desk: Person, docker: DockerBed, image: str
) -> None:
    """The image check takes seconds; who is killed meanwhile cannot tidy up."""
    run = start(desk.home, job_of("early", str(COUNTING), "900"), image)
    wait(lambda: containers(docker), "the container")
    for process in processes(desk):
        if process.cmdline()[:1] == ["bash"] and process.cmdline()[1].endswith("container.sh"):
            process.send_signal(signal.SIGKILL)
    first = set(containers(docker))
    wait(lambda: not first & set(containers(docker)), "the end of the container")
    assert run.root.exists()
    desk.types("cancel", "early", "--now")
    wait(lambda: not containers(docker), "the end of everything")


def test_a_cancel_saves_in_the_container(desk: Person, docker: DockerBed, image: str) -> None:
    run = start(desk.home, job_of("saves", str(COUNTING), "900"), image)
    wait(a_step(run), "a step")
    assert "saved" in desk.types("cancel", "saves").stdout
    assert list(run.checkpoints.glob("checkpoint-*"))
    wait(lambda: not containers(docker), "the end of the container")


@pytest.mark.parametrize(
    ("name", "environ", "words"),
    [
        ("absent", {}, ["No such image", "clusterlm build-image"]),
        ("deaf", {"DOCKER_HOST": "unix:///nowhere.sock"}, ["Cannot connect to the Docker daemon"]),
        ("gpus", {LOCAL_GPUS: "0"}, ["could not select device driver", "--gpus none"]),
    ],
)
def test_docker_that_cannot_start_it_is_told_in_its_own_words(
    desk: Person,
    image: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    environ: dict[str, str],
    words: list[str],
) -> None:
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    tag = "clusterlm-test:absent" if name == "absent" else image
    resources = {"gpus_per_node": 1 if name == "gpus" else 0}
    start(desk.home, job_of(name, str(LOOK), resources=resources), tag)
    end = wait_for_end(desk, name)
    assert (end["state"], end["cause"]) == ("STOPPED", "IMAGE")
    why = desk.types("why", name).stdout
    for word in words:
        assert word in why
