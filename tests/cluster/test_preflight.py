"""What starts a container is looked for before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from clusterlm.cluster.preflight import has_pyxis, refuse_impossible
from clusterlm.errors import ClusterLMError
from clusterlm.spec.job import Job
from tests.cluster.fake_host import FakeHost


def job_of(runtime: str | None, cluster: str = "local") -> Job:
    fields: dict[str, Any] = {"name": "x", "cluster": cluster, "train": {"command": ["run"]}}
    return Job.model_validate({**fields, "image": {"runtime": runtime} if runtime else None})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((127, "", "docker: not found"), ["not on this machine", "install docker"]),
        ((1, "", "Cannot connect to the Docker daemon at unix:///x."), ["Cannot", "DOCKER_HOST"]),
        ((1, "", "permission denied while trying to connect"), ["group `docker`"]),
        ((None, "", "docker: no answer in 30 s"), ["no answer"]),
    ],
)
def test_a_docker_that_does_not_answer_is_told_in_words(
    answer: tuple[int | None, str, str], words: list[str]
) -> None:
    with pytest.raises(ClusterLMError) as caught:
        refuse_impossible(job_of("docker"), FakeHost(docker=answer))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("runtime", ["enroot", "apptainer"])
def test_a_runtime_must_be_here_when_the_phases_run_here(runtime: str) -> None:
    with pytest.raises(ClusterLMError, match=rf"image\.runtime.*{runtime} is not on this machine"):
        refuse_impossible(job_of(runtime), FakeHost())
    refuse_impossible(job_of(runtime), FakeHost(**{runtime: (0, "", "")}))


def test_the_older_name_of_apptainer_will_do() -> None:
    refuse_impossible(job_of("apptainer"), FakeHost(singularity=(0, "", "")))


@pytest.mark.parametrize("runtime", [None, "none"])
def test_without_an_image_nobody_is_asked(runtime: str | None) -> None:
    host = FakeHost()
    refuse_impossible(job_of(runtime), host)
    assert host.calls == []


def test_pyxis_is_an_option_of_srun() -> None:
    assert has_pyxis(FakeHost(srun=(0, "  --container-image=PATH\n", "")))
    assert not has_pyxis(FakeHost(srun=(0, "  --chdir=PATH\n", "")))
