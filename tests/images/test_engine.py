"""Which builder is taken, and what is said when none can be: by what the programs really print."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from clusterlm.cluster.host import Completed
from clusterlm.cluster.images.engine import Engine, find_engine
from clusterlm.cluster.images.trouble import (
    is_disk_full,
    kind_of_registry_trouble,
    pull_trouble,
    push_trouble,
    registry_host,
)
from clusterlm.errors import ImageError

OLD = {"Client": {"Version": "20.10.24+dfsg1", "Os": "linux", "Arch": "amd64"}, "Server": {}}
NEW = {"Client": {"Version": "28.2.2", "Os": "linux", "Arch": "amd64"}, "Server": {}}
PODMAN_AS_DOCKER = {"Client": {"Version": "4.3.1", "OsArch": "linux/amd64"}, "Server": None}
DOWN = (
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
    " Is the docker daemon running?"
)
NO_RIGHTS = (
    "permission denied while trying to connect to the Docker daemon socket at unix://{}: Get"
    ' "http://%2Fvar%2Frun%2Fdocker.sock/v1.24/version": dial unix {}: connect: permission denied'
)
NO_BUILDX = "docker: unknown command: docker buildx\n\nRun 'docker --help' for more information"


class Scripted:
    """A host whose programs say what a test tells them."""

    def __init__(self, programs: dict[str, Callable[..., tuple[int, str, str]]]) -> None:
        self.programs = programs

    def has(self, program: str) -> bool:
        return program in self.programs

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0) -> Completed:
        if argv[0] not in self.programs:
            return Completed(tuple(argv), 127, "", f"{argv[0]}: not found")
        return Completed(tuple(argv), *self.programs[argv[0]](*argv[1:]))

    def stream(self, argv: Sequence[str], each: Callable[[str], None]) -> int:
        raise AssertionError(argv)


def docker(
    version: dict[str, Any], *, buildx: bool = False, code: int = 0, err: str = ""
) -> Callable[..., tuple[int, str, str]]:
    def answer(*words: str) -> tuple[int, str, str]:
        if words[:2] == ("buildx", "version"):
            return (0, "v0.14", "") if buildx else (1, "", NO_BUILDX)
        return code, json.dumps(version), err

    return answer


def works(*_words: str) -> tuple[int, str, str]:
    return 0, "{}", ""


def broken(*_words: str) -> tuple[int, str, str]:
    return 125, "", 'Error: exec: "newuidmap": executable file not found in $PATH'


@pytest.mark.parametrize(
    ("programs", "kind", "program", "has_buildx"),
    [
        ({"docker": docker(OLD)}, "docker", "docker", False),
        ({"docker": docker(NEW, buildx=True)}, "docker", "docker", True),
        (
            {
                "docker": docker(NEW),
                "which": lambda *_: (0, "/usr/local/bin/docker\n/usr/bin/docker\n", ""),
                "/usr/bin/docker": docker(OLD),
            },
            "docker",
            "/usr/bin/docker",
            False,
        ),
        ({"docker": docker(PODMAN_AS_DOCKER)}, "podman", "docker", False),
        ({"docker": docker(NEW), "podman": works}, "podman", "podman", False),
        ({"docker": docker(OLD, code=1, err=DOWN), "podman": works}, "podman", "podman", False),
        ({"podman": broken, "buildah": works}, "buildah", "buildah", False),
    ],
)
def test_the_first_builder_that_answers_is_taken(
    programs: dict[str, Any], kind: str, program: str, has_buildx: bool
) -> None:
    engine, _ = find_engine(Scripted(programs))
    assert (engine.kind, engine.program, engine.has_buildx) == (kind, program, has_buildx)


def test_what_does_not_answer_is_named_beside_what_is_taken() -> None:
    _, notes = find_engine(Scripted({"docker": docker(OLD, code=1, err=DOWN), "podman": works}))
    assert "daemon does not answer at unix:///var/run/docker.sock\n" in notes[0]


@pytest.mark.parametrize(
    ("programs", "wanted", "said"),
    [
        ({}, None, ["no docker, podman or buildah on PATH", "apt install podman", "image.file"]),
        ({"podman": works}, "docker", ["image.builder is docker, but there is no docker on PATH"]),
        ({"docker": docker(NEW)}, None, ["28.2.2 cannot build: its component buildx is missing"]),
        (
            {"docker": docker(OLD, code=1, err=DOWN)},
            "docker",
            ["its daemon does not answer at unix:///var/run/docker.sock", "systemctl start docker"],
        ),
        ({"podman": broken}, None, ["podman is installed but does not work", "newuidmap"]),
    ],
)
def test_without_a_builder_it_is_said_what_to_do(
    programs: dict[str, Any], wanted: Any, said: list[str]
) -> None:
    with pytest.raises(ImageError) as error:
        find_engine(Scripted(programs), wanted)
    for words in said:
        assert words in str(error.value)


def test_a_socket_without_rights_names_its_group(tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    socket.touch()
    err = NO_RIGHTS.format(socket, socket)
    with pytest.raises(ImageError) as error:
        find_engine(Scripted({"docker": docker(OLD, code=1, err=err)}))
    assert f"{socket} is for root and the group " in str(error.value)
    assert "usermod -aG" in str(error.value)
    assert "--set image.builder=podman" in str(error.value)


def test_secrets_are_files_and_values_are_no_arguments(tmp_path: Path) -> None:
    for kind, has_buildx in (("docker", False), ("docker", True), ("podman", False)):
        engine = Engine(kind, kind, Scripted({}), has_buildx)  # type: ignore[arg-type]
        argv = engine.build_argv(tmp_path, "clusterlm:1", {"TOKEN": tmp_path / "TOKEN"})
        assert f"id=TOKEN,src={tmp_path}/TOKEN" in argv
        assert argv[-1] == str(tmp_path)
        assert ("--load" in argv) == has_buildx
        assert (argv[:2] == ["env", "DOCKER_BUILDKIT=1"]) == (kind == "docker")


# what docker 20.10, buildx, podman 4.3 and enroot 4.1 really print
TEXTS = {
    'dial tcp: lookup nvcr.io on 10.1.1.1:53: no such host': "offline",
    'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused': "offline",
    'Get "https://nvcr.io/v2/": net/http: TLS handshake timeout': "offline",
    "curl: (6) Could not resolve host: nvcr.io": "offline",
    "manifest for nvcr.io/x:1 not found: manifest unknown: manifest unknown": "unknown",
    "reading manifest 1 in 127.0.0.1:5901/x: manifest unknown: manifest unknown": "unknown",
    "failed to create LLB definition: 127.0.0.1:5901/x:1: not found": "unknown",
    'Head "http://127.0.0.1:5902/v2/x/manifests/1": no basic auth credentials': "login",
    "reading manifest 1 in 127.0.0.1:5902/x: unauthorized: authentication required": "login",
    "pulling from host nvcr.io failed with status code [manifests 1]: 401 Unauthorized": "login",
    "pull access denied for x, repository does not exist or may require 'docker login'": "login",
    "denied: requested access to the resource is denied": "login",
    "URL https://nvcr.io/v2/x/manifests/1 returned error code: 401 Unauthorized": "login",
    "toomanyrequests: You have reached your pull rate limit.": "limit",
    "tls: failed to verify certificate: x509: certificate signed by unknown authority":
        "certificate",
    "no matching manifest for linux/arm64/v8 in the manifest list entries": "platform",
    'short-name "x:1" did not resolve to an alias': "short",
    "something else": None,
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_what_a_registry_says_is_understood(text: str) -> None:
    assert kind_of_registry_trouble(text) == TEXTS[text]
    # whatever it was, the program's own words are there
    assert text in pull_trouble("nvcr.io/nvidia/pytorch:1", "docker", f"noise\n{text}\n")
    assert text in push_trouble("nvcr.io/nvidia/pytorch:1", "docker", f"noise\n{text}\n")


def test_nvidia_wants_a_literal_user_name() -> None:
    words = pull_trouble("nvcr.io/nvidia/pytorch:1", "docker", "401 Unauthorized")
    assert "docker login nvcr.io" in words
    assert "$oauthtoken" in words


@pytest.mark.parametrize(
    ("image", "host"),
    [
        ("nvcr.io/nvidia/pytorch:24.08-py3", "nvcr.io"),
        ("localhost/x", "localhost"),
        ("host:5000/x:1", "host:5000"),
        ("pytorch/pytorch:2.5", "docker.io"),
        ("ubuntu:24.04", "docker.io"),
    ],
)
def test_the_registry_of_a_name(image: str, host: str) -> None:
    assert registry_host(image) == host


def test_a_full_disk_is_known_by_its_words() -> None:
    assert is_disk_full("write /layer.tar: no space left on device")
    assert is_disk_full("Write failed because Disk quota exceeded")
    assert not is_disk_full("exit code: 1")
