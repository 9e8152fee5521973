"""Building, reusing and failing, on a real Docker with a recipe that takes a second."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clusterlm.cluster.host import LocalHost
from clusterlm.cluster.images import execute, space
from clusterlm.cluster.images.build import ensure_image, find_image
from clusterlm.cluster.images.record import read_record
from clusterlm.errors import ImageError, TorchReplaced
from clusterlm.image_paths import ImagePaths
from tests.bed.docker import DockerBed
from tests.images.tiny import collect, job_on, tiny_recipe, use_tiny

FAKES = Path(__file__).parent / "fakes"
TOKEN = "t0ken/of+mine%20"


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "images"
    monkeypatch.setenv("CLUSTERLM_IMAGES_DIR", str(folder))
    monkeypatch.setenv("TOKEN", TOKEN)
    return folder


def test_a_build_is_recorded_and_the_second_call_does_nothing(
    docker: DockerBed, fake_base: str, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny(monkeypatch, "echo first")
    job = job_on(fake_base)
    lines, tell = collect()
    record = ensure_image(job, LocalHost(), tell=tell)
    assert record
    paths = find_image(job)
    assert paths
    assert read_record(paths) == record
    assert record.torch == "2.5.0a0"
    assert record.builder == "docker"
    assert [line for line in lines if "RUN echo first" in line]
    lines, tell = collect()
    assert ensure_image(job, LocalHost(), tell=tell, may_build=False) == record
    assert lines == []


def test_a_lost_record_is_read_out_of_the_image(
    docker: DockerBed, fake_base: str, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny(monkeypatch, "echo lost")
    job = job_on(fake_base)
    record = ensure_image(job, LocalHost(), tell=print)
    paths = find_image(job)
    assert paths
    paths.record.unlink()
    lines, tell = collect()
    assert ensure_image(job, LocalHost(), tell=tell) == record
    assert not [line for line in lines if "building" in line]


def test_no_build_refuses_what_is_not_there(
    docker: DockerBed, fake_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny(monkeypatch, "echo never")
    with pytest.raises(ImageError, match=r"not there yet .*\n  make it first:  clusterlm build-im"):
        ensure_image(job_on(fake_base), LocalHost(), tell=print, may_build=False)


def test_another_base_under_the_tag_is_told_and_pull_builds_on_it(
    docker: DockerBed, fake_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.run("tag", fake_base, "moving:1")
    use_tiny(monkeypatch, "echo moving")
    job = job_on("moving:1")
    first = ensure_image(job, LocalHost(), tell=print)
    docker.run("build", "--tag", "moving:1", "-", stdin=f"FROM {fake_base}\nLABEL a=b".encode())
    lines, tell = collect()
    assert ensure_image(job, LocalHost(), tell=tell) == first
    assert "build-image JOB --pull" in lines[0]


def test_an_image_that_was_changed_under_its_name_is_built_anew(
    docker: DockerBed, fake_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny(monkeypatch, "echo honest")
    job = job_on(fake_base)
    first = ensure_image(job, LocalHost(), tell=print)
    assert first
    # a label is inherited by whatever is committed on top
    docker.run("build", "--tag", first.tag, "-", stdin=f"FROM {first.tag}\nENV EVIL=1".encode())
    lines, tell = collect()
    again = ensure_image(job, LocalHost(), tell=tell)
    assert "is not the image that was built" in lines[0]
    assert again
    assert "EVIL" not in docker.run("inspect", again.tag).stdout


def test_a_failed_step_is_told_with_its_output_and_log(
    docker: DockerBed, fake_base: str, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny(monkeypatch, "echo the reason; exit 3")
    with pytest.raises(ImageError) as error:
        ensure_image(job_on(fake_base), LocalHost(), tell=print)
    text = str(error.value)
    assert "step 2/3  RUN echo the reason; exit 3 failed" in text
    assert "  | the reason" in text
    log = Path(text.rsplit("the whole output: ")[1])
    assert "the reason" in log.read_text()
    assert not list(images.glob("*.json"))


def test_a_refusal_of_a_step_is_the_error(
    docker: DockerBed, fake_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = r"printf 'clust%s image: evilpin is no good\nclust%s image:   why\n' erlm erlm >&2"
    use_tiny(monkeypatch, f"{refuse}; exit 65")
    with pytest.raises(TorchReplaced, match=r"not built: evilpin is no good\n  why\n"):
        ensure_image(job_on(fake_base), LocalHost(), tell=print)
    use_tiny(monkeypatch, f"{refuse}; exit 66")
    with pytest.raises(ImageError) as error:
        ensure_image(job_on(fake_base), LocalHost(), tell=print)
    assert not isinstance(error.value, TorchReplaced)


def test_a_secret_is_in_no_line_log_or_layer(
    docker: DockerBed, fake_base: str, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a time in the recipe: a cached step would show nothing
    use_tiny(monkeypatch, f"echo {time.time()}")
    lines, tell = collect()
    record = ensure_image(job_on(fake_base, build_secrets=["TOKEN"]), LocalHost(), tell=tell)
    assert record
    log = next(images.glob("*.log")).read_text()
    # plain and in base64
    assert log.count("***") >= 2
    shown = docker.run("history", "--no-trunc", record.tag).stdout + "\n".join(lines) + log
    assert TOKEN not in shown
    assert not list(Path("/dev/shm").glob(f"clusterlm-build-{os.getpid()}-*"))


def test_a_short_disk_is_found_before_the_build(
    docker: DockerBed, fake_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny(monkeypatch, "echo short")
    monkeypatch.setattr(space, "free_bytes", lambda folder: 10_000_000)
    with pytest.raises(ImageError, match=r"too little room .* keeps images: .* needed .*, 10 MB"):
        ensure_image(job_on(fake_base), LocalHost(), tell=print)


def test_a_full_disk_during_the_build_is_told(
    docker: DockerBed, fake_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny(monkeypatch, "head -c 9 /dev/zero > /dev/full")
    with pytest.raises(ImageError, match=r"the disk is full: docker could not build") as error:
        ensure_image(job_on(fake_base), LocalHost(), tell=print)
    assert "docker system df" in str(error.value)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("far.invalid/team/x:1", "far.invalid cannot be reached\n  where there is a network:"),
        ("127.0.0.1:9/team/x:1", "127.0.0.1:9 cannot be reached"),
    ],
)
def test_a_base_that_cannot_be_pulled_is_told(
    docker: DockerBed, monkeypatch: pytest.MonkeyPatch, base: str, said: str
) -> None:
    use_tiny(monkeypatch)
    monkeypatch.setattr(space, "BASE_BYTES", 0)
    with pytest.raises(ImageError) as error:
        ensure_image(job_on(base), LocalHost(), tell=print)
    assert said in str(error.value)


def test_a_push_that_goes_nowhere_is_told(
    docker: DockerBed, fake_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny(monkeypatch, "echo push")
    job = job_on(fake_base, registry="127.0.0.1:9/team/x")
    with pytest.raises(ImageError, match=r"127\.0\.0\.1:9 cannot be reached, so .* was not pushed"):
        ensure_image(job, LocalHost(), tell=print)
    tags = docker.run("images", "--format", "{{.Repository}}").stdout
    assert "127.0.0.1:9" not in tags


def test_two_builds_of_one_recipe_meet(
    docker: DockerBed, fake_base: str, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny(monkeypatch, f"sleep 2; echo {time.time()}")
    # signal handlers belong to the main thread; here both are in others
    monkeypatch.setattr("clusterlm.cluster.images.build.ends_like_ctrl_c", threading.Lock)
    found, lines = [], []

    def ensure() -> None:
        found.append(ensure_image(job_on(fake_base), LocalHost(), tell=lines.append))

    threads = [threading.Thread(target=ensure) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert found[0]
    assert len([line for line in lines if line.startswith("building")]) == 1
    assert len([line for line in lines if "waiting for it" in line]) == 1


INTERRUPTED = """
import sys
from pathlib import Path
import pytest
from clusterlm.cluster.host import LocalHost
from clusterlm.cluster.images.build import ensure_image
from tests.images.tiny import job_on, use_tiny
use_tiny(pytest.MonkeyPatch(), sys.argv[2])
ensure_image(job_on(sys.argv[1], build_secrets=["TOKEN"]), LocalHost(), tell=print)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_build_leaves_nothing(
    docker: DockerBed, fake_base: str, images: Path, number: int
) -> None:
    run = f"sleep 97; echo {time.time()}"
    argv = [sys.executable, "-u", "-c", INTERRUPTED, fake_base, run]
    child = subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout
    while "sleep 97" not in child.stdout.readline():
        assert child.poll() is None
    child.send_signal(number)
    assert child.wait(timeout=20) != 0
    child.stdout.close()
    assert not list(images.glob("*.json"))
    assert not list(Path("/dev/shm").glob(f"clusterlm-build-{child.pid}-*"))
    until = time.monotonic() + 10
    while _sleepers():
        assert time.monotonic() < until
        time.sleep(0.1)
    assert docker.run("ps", "--all", "--quiet").stdout == ""


def _sleepers() -> list[str]:
    argv = ["pgrep", "--full", "--exact", "sleep 97"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()


def test_an_image_comes_out_of_docker_as_one_file(
    docker: DockerBed, fake_base: str, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny(monkeypatch, "echo inside > /mark")
    # first on PATH, and after it the client that works with this daemon
    monkeypatch.setenv("PATH", f"{FAKES}:{os.environ['PATH']}")
    job = job_on(fake_base, runtime="enroot")
    record = ensure_image(job, LocalHost(), tell=print)
    assert record
    assert record.file
    argv = ["unsquashfs", "-cat", str(images / record.file), "mark", "opt/clusterlm/image.json"]
    held = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert held.startswith("inside\n")
    assert record.recipe in held
    assert docker.run("ps", "--all", "--quiet").stdout == ""
    # a whole file is enough: no daemon is asked
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    assert ensure_image(job, LocalHost(), tell=print, may_build=False) == record


def test_the_image_without_a_command_is_told(
    docker: DockerBed, fake_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{FAKES}:{os.environ['PATH']}")
    dockerfile = "FROM scratch\nLABEL a=b\nENV PATH=/bin\n"
    docker.run("build", "--tag", "nocmd:1", "-", stdin=dockerfile.encode())
    from clusterlm.cluster.images.importing import import_image
    from tests.images.test_import import record_of

    job = job_on(fake_base, runtime="enroot")
    record = record_of("f" * 64)
    docker.run("tag", "nocmd:1", record.tag)
    with pytest.raises(ImageError, match="the image has no CMD"):
        import_image(job, ImagePaths(record.recipe), record, "enroot", LocalHost(), print)


def test_the_log_is_beside_the_images(images: Path) -> None:
    recipe = tiny_recipe(job_on("x:1").image)  # type: ignore[arg-type]
    assert execute.log_path(recipe.paths).parent == images
