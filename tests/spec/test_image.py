"""The image section: paths made absolute, nothing secret shown, what is noted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clusterlm.spec.job import Job
from clusterlm.spec.rules_image import mount_of
from tests.spec.conftest import Load, Refuse
from tests.spec.rows_image import image_files, on_slurm

SECRET = "hf_canaryCanaryCanary42"


@pytest.fixture(autouse=True)
def files(folder: Path) -> None:
    image_files(folder)


def test_paths_are_absolute_after_reading(load: Load, folder: Path) -> None:
    job = load({"image": {"requirements": "good.txt", "wheelhouse": "./wheels/"}}).job
    assert job.image is not None
    assert job.image.requirements == str(folder / "good.txt")
    assert job.image.wheelhouse == str(folder / "wheels")
    built = load(on_slurm(file="built.sqsh")).job.image
    assert built is not None
    assert built.file == str(folder / "built.sqsh")


def test_home_is_filled_in_for_mounts(
    load: Load, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    image = load({"image": {"mounts": ["~/wheels:/w:ro", "~"]}}).job.image
    assert image is not None
    assert image.mounts == [f"{folder}/wheels:/w:ro", str(folder)]


def test_a_relative_mount_is_refused_with_what_is_accepted(refuse: Refuse) -> None:
    assert "absolute folder" in refuse({"image": {"mounts": ["data:/data"]}})["image.mounts[0]"]


@pytest.mark.parametrize(
    "keys",
    [
        {"env": {"A": f"${SECRET}"}},
        {"env": {"A": SECRET}},
        {"env": {"B_TOKEN": SECRET}},
        {"env": {"A": f"https://me:{SECRET}@host"}},
        {"build_secrets": [SECRET]},
        {"build_secrets": [f"A={SECRET}"]},
        {"build_secrets": {"A": SECRET}},
        {"pip": [f"a@git+https://me:{SECRET}@host/a"]},
        {"pip": [f"a@git+https://{SECRET}@host/a"]},
        {"base": f"https://me:{SECRET}@host/a"},
        {"registry": f"https://{SECRET}@host/a"},
        {"requirements": "private.txt"},
    ],
)
def test_what_may_be_a_secret_is_never_shown(
    refuse: Refuse, folder: Path, keys: dict[str, Any]
) -> None:
    (folder / "private.txt").write_text(f"a @ git+https://me:{SECRET}@host/a\n")
    problems = refuse({"image": keys})
    assert SECRET not in str(problems)
    assert SECRET[:12] not in str(problems)


def test_every_mistake_in_a_requirements_file_comes_with_its_line(
    load: Load, folder: Path, refuse: Refuse
) -> None:
    (folder / "many.txt").write_text("-r other.txt\npeft\n./x.whl\n")
    messages = refuse({"image": {"requirements": "many.txt"}})
    assert "line 3" in messages["image.requirements"]
    (folder / "binary.txt").write_bytes(b"\xff\xfe")
    assert "cannot be read" in refuse({"image.requirements": "binary.txt"})["image.requirements"]
    assert "cannot be read" in refuse({"image.requirements": "wheels"})["image.requirements"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image": {"base": "team/base:1"}}, "is not known here"),
        ({"image": {"base": "team/base"}}, "is :latest"),
        ({"image": {"base": "registry:5000/team/base"}}, "is :latest"),
        (on_slurm(runtime="docker"), "right to use docker on every node"),
        (on_slurm(mounts=["/nowhere/at/all:/x"]), "not verified: /nowhere/at/all:/x"),
        ({"image": {"runtime": "none"}}, "the job does not use it"),
    ],
)
def test_what_may_surprise_is_noted(load: Load, changes: dict[str, Any], says: str) -> None:
    assert any(says in note for note in load(changes).notes)


def test_a_plain_image_needs_no_note(load: Load) -> None:
    assert load({"image": {}}).notes == ()
    digest = f"nvcr.io/nvidia/pytorch@sha256:{'0' * 64}"
    assert not any(":latest" in note for note in load({"image": {"base": digest}}).notes)


@pytest.mark.parametrize(
    ("cluster", "image", "runtime"),
    [
        ("local", None, "none"),
        ("local", {}, "docker"),
        ("slurm", {}, "pyxis"),
        ("slurm", {"runtime": "enroot"}, "enroot"),
    ],
)
def test_the_runtime_goes_by_the_cluster(cluster: str, image: Any, runtime: str) -> None:
    job = Job.model_validate({"name": "x", "cluster": cluster, "image": image})
    assert job.runtime == runtime


def test_a_mount_is_a_source_and_a_target() -> None:
    assert mount_of("/data") == ("/data", "/data")
    assert mount_of("/data:/in/side/:ro") == ("/data", "/in/side")
    assert mount_of("/data:/ro") == ("/data", "/ro")
    assert mount_of("/data://x//y") == ("/data", "/x/y")
