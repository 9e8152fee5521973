"""The import scripts: golden, clean shell, and what they do, with stand-ins for the programs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterlm.cluster.host import LocalHost
from clusterlm.cluster.images.importing import (
    enroot_uri,
    given_file,
    import_image,
    import_of,
    imported,
)
from clusterlm.cluster.images.record import ImageRecord, read_seal, record_from
from clusterlm.errors import ImageError, ImageNotImported
from clusterlm.image_paths import ImagePaths
from clusterlm.render import Import, render_import, render_import_sbatch
from tests.images.tiny import INSIDE, collect, job_on

GOLDEN = Path(__file__).parents[2] / "enroot"
FAKES = Path(__file__).parent / "fakes"
RECIPE = "0123456789abcdef" * 4
REGISTRY = "registry.example:5000/team/clusterlm"


def record_of(recipe: str = RECIPE, **fields: Any) -> ImageRecord:
    known = {
        **{k: v for k, v in INSIDE.items() if k != "guarded"},
        "recipe": recipe,
        "base": "base:1",
        "base_digest": "sha256:1",
        "image_id": "sha256:2",
        "builder": "docker",
        "tag": f"clusterlm:{recipe[:16]}",
        "size_bytes": 2_000_000,
        **fields,
    }
    record = record_from(known)
    assert record
    return record


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An images folder whose name would break a script that does not quote."""
    folder = tmp_path / "im ages' $HOME `id`"
    folder.mkdir()
    monkeypatch.setenv("CLUSTERLM_IMAGES_DIR", str(folder))
    return folder


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-ins first on PATH; what they unpack goes to a folder of this test."""
    monkeypatch.setenv("PATH", f"{FAKES}:{os.environ['PATH']}")
    work = tmp_path / "unpacked"
    work.mkdir()
    monkeypatch.setenv("ENROOT_TEMP_PATH", str(work))
    monkeypatch.setenv("APPTAINER_TMPDIR", str(work))
    return work


def texts(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("CLUSTERLM_IMAGES_DIR", "/shared/clusterlm/images")
    paths = ImagePaths(RECIPE)
    needs = {"size_bytes": 20_600_000_000}

    def script(runtime: Any, builder: str = "docker", **asked: Any) -> Import:
        image = job_on("nvcr.io/nvidia/pytorch:24.08-py3", **asked).image
        assert image
        return import_of(image, paths, record_of(builder=builder, **needs), runtime)

    asked = {
        "enroot_docker.sh": script("pyxis"),
        "enroot_podman.sh": script("enroot", "podman"),
        "enroot_registry.sh": script("pyxis", registry=REGISTRY),
        "apptainer_docker.sh": script("apptainer"),
        "apptainer_podman.sh": script("apptainer", "podman"),
        "apptainer_registry.sh": script("apptainer", registry=REGISTRY),
    }
    job = job_on(
        "nvcr.io/nvidia/pytorch:24.08-py3",
        cluster="slurm",
        registry=REGISTRY,
        import_on="slurm",
        resources={"account": "team-a", "preprocess": {"cpus": 8, "partition": "cpu"}},
    )
    batch = render_import_sbatch(job, paths, paths.context / "enroot_import.sh")
    return {**{n: render_import(a) for n, a in asked.items()}, "import.sbatch": batch}


def test_the_import_steps_are_the_golden_ones(
    monkeypatch: pytest.MonkeyPatch, update_golden: bool
) -> None:
    found = texts(monkeypatch)
    if update_golden:
        GOLDEN.mkdir(exist_ok=True)
        for name, text in found.items():
            (GOLDEN / name).write_text(text)
    assert {p.name for p in GOLDEN.iterdir()} - {"README.md"} == set(found)
    for name, text in found.items():
        assert (GOLDEN / name).read_text() == text, name


@pytest.mark.parametrize("name", sorted(p.name for p in GOLDEN.glob("*.s*")))
def test_the_import_steps_are_clean_shell(name: str) -> None:
    subprocess.run(["bash", "-n", str(GOLDEN / name)], check=True)
    argv = ["shellcheck", "--shell=bash", "--severity=style", str(GOLDEN / name)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("repository", "uri"),
    [
        ("registry.example:5000/team/x", "docker://registry.example:5000#team/x:1"),
        ("nvcr.io/org/x", "docker://nvcr.io#org/x:1"),
        ("localhost/x", "docker://localhost#x:1"),
        ("docker.io/me/x", "docker://me/x:1"),
        ("me/x", "docker://me/x:1"),
    ],
)
def test_enroot_wants_the_registry_before_a_hash(repository: str, uri: str) -> None:
    assert enroot_uri(repository, "1") == uri


def test_buildah_alone_can_feed_no_enroot() -> None:
    image = job_on("base:1", builder="buildah").image
    assert image
    with pytest.raises(ImageError, match=r"set `image\.registry`, or install podman"):
        import_of(image, ImagePaths(RECIPE), record_of(builder="buildah"), "pyxis")


def run_import(images: Path, runtime: Any = "enroot", registry: str = REGISTRY) -> ImageRecord:
    """An import from the registry of the stand-in: no daemon is needed."""
    job = job_on("base:1", registry=registry, runtime=runtime)
    lines, tell = collect()
    return import_image(job, ImagePaths(RECIPE), record_of(), runtime, LocalHost(), tell)


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if p.name not in ("build", "layers")}


def test_an_image_is_imported_once_and_sealed(images: Path, fakes: Path) -> None:
    record = run_import(images)
    file = images / f"{RECIPE[:16]}.sqsh"
    assert record.file == file.name
    assert record.file_bytes == file.stat().st_size
    known = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True)
    assert known.stdout.split()[0].lstrip("\\") == record.file_sha256
    held = subprocess.run(["unsquashfs", "-cat", file, "from"], capture_output=True, check=True)
    assert held.stdout.decode().split() == ["registry.example:5000", "team/clusterlm", RECIPE[:16]]
    made = file.stat().st_mtime_ns
    assert run_import(images) == record
    assert file.stat().st_mtime_ns == made
    # nothing is left of the way there
    assert names(images) == {f"{RECIPE[:16]}{e}" for e in (".sqsh", ".sqsh.json", ".json", ".lock")}
    assert not any(fakes.iterdir())
    script = images / "build" / RECIPE[:16] / "enroot_import.sh"
    assert script.stat().st_mode & 0o777 == 0o700


def test_a_file_of_another_size_is_made_again(images: Path, fakes: Path) -> None:
    run_import(images)
    file = images / f"{RECIPE[:16]}.sqsh"
    with file.open("ab") as handle:
        handle.write(b"x")
    assert read_seal(file) is None
    assert run_import(images).file_bytes == file.stat().st_size


def test_a_script_run_by_hand_is_seen(images: Path, fakes: Path) -> None:
    paths = ImagePaths(RECIPE)
    assert imported(paths, record_of(), "pyxis") is None
    script = images / "by-hand.sh"
    image = job_on("base:1", registry=REGISTRY).image
    assert image
    script.write_text(render_import(import_of(image, paths, record_of(), "pyxis")))
    subprocess.run(["bash", script], check=True, capture_output=True)
    found = imported(paths, record_of(), "pyxis")
    assert found
    assert found.file == paths.squashfs.name


def test_without_the_program_the_script_is_ready(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalHost, "has", lambda self, program: False)
    with pytest.raises(ImageNotImported, match=r"there is no enroot here to make") as error:
        run_import(images)
    script = images / "build" / RECIPE[:16] / "enroot_import.sh"
    assert str(error.value).endswith(f"bash {script}")
    assert script.exists()


@pytest.mark.parametrize(
    ("registry", "said"),
    [
        ("locked.example/x", ["machine locked.example login USER", ".credentials", "401"]),
        ("far.example/x", ["Could not resolve host: far.example"]),
    ],
)
def test_what_enroot_says_is_told(
    images: Path, fakes: Path, registry: str, said: list[str]
) -> None:
    with pytest.raises(ImageError) as error:
        run_import(images, registry=registry)
    for words in said:
        assert words in str(error.value)
    assert names(images) == {f"{RECIPE[:16]}.lock"}
    assert not any(fakes.iterdir())


def started(images: Path, fakes: Path) -> subprocess.Popen[str]:
    """An import that waits with half of its file written."""
    image = job_on("base:1", registry=REGISTRY).image
    assert image
    script = images / "by-hand.sh"
    script.write_text(render_import(import_of(image, ImagePaths(RECIPE), record_of(), "pyxis")))
    child = subprocess.Popen(
        ["bash", str(script)],
        env={**os.environ, "FAKE_ENROOT_SLOW": "30"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 20
    while not (found := list(images.glob(".*importing*"))) or not found[0].stat().st_size:
        assert time.monotonic() < until
        time.sleep(0.05)
    return child


@pytest.fixture
def half_done(images: Path, fakes: Path) -> Iterator[subprocess.Popen[str]]:
    child = started(images, fakes)
    yield child
    with_group(child, signal.SIGKILL)
    child.wait()
    assert child.stdout
    child.stdout.close()


def with_group(child: subprocess.Popen[str], number: int) -> None:
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_import_leaves_nothing_that_looks_whole(
    images: Path, fakes: Path, half_done: subprocess.Popen[str], number: int
) -> None:
    assert not list(images.glob("*.sqsh"))
    with_group(half_done, number)
    half_done.wait(timeout=20)
    assert not list(images.glob("*.sqsh"))
    if number != signal.SIGKILL:
        assert names(images) == {f"{RECIPE[:16]}.lock", "by-hand.sh"}
        assert not any(fakes.iterdir())
    # the next one works, and clears what was left
    assert run_import(images).file
    assert not list(images.glob(".*importing*"))
    assert not any(fakes.iterdir())


def test_two_imports_of_one_image_meet(
    images: Path, fakes: Path, half_done: subprocess.Popen[str]
) -> None:
    second = subprocess.Popen(
        ["bash", str(images / "by-hand.sh")], stderr=subprocess.PIPE, text=True
    )
    assert second.stderr
    assert "is under way: waiting for it" in second.stderr.readline()
    with_group(half_done, signal.SIGKILL)
    said = second.stderr.read()
    assert second.wait(timeout=30) == 0, said
    second.stderr.close()
    assert read_seal(images / f"{RECIPE[:16]}.sqsh")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A folder on a file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(size: str) -> Path:
        argv = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        subprocess.run(argv, check=True)
        return folder

    yield mount
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


def test_a_short_disk_is_found_before(
    fakes: Path, small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_disk("1m")
    monkeypatch.setenv("CLUSTERLM_IMAGES_DIR", str(folder))
    with pytest.raises(ImageError, match=r"^no room for the image in .*: 2 MB needed") as error:
        run_import(folder)
    assert "images gc --keep" in str(error.value)
    assert "ENROOT_SQUASH_OPTIONS='-comp zstd'" in str(error.value)
    assert names(folder) == {f"{RECIPE[:16]}.lock"}


def test_another_folder_is_taken_to_unpack_in_when_one_is_small(
    images: Path, fakes: Path, small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENROOT_TEMP_PATH", str(small_disk("1m")))
    monkeypatch.setenv("TMPDIR", str(fakes))
    assert run_import(images).file


def test_apptainer_makes_a_sif(images: Path, fakes: Path) -> None:
    record = run_import(images, "apptainer")
    assert record.file == f"{RECIPE[:16]}.sif"
    assert given_file(images / record.file) == record
    shutil.rmtree(images)
    images.mkdir()
    with pytest.raises(ImageError, match="apptainer remote login --username USER docker://locked"):
        run_import(images, "apptainer", "locked.example/x")


def test_a_given_file_must_be_an_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        given_file(tmp_path / "absent.sqsh")
    (tmp_path / "text.sqsh").write_text("no image")
    with pytest.raises(ImageError, match="neither a squashfs"):
        given_file(tmp_path / "text.sqsh")
