"""images ls, rm, gc: what is shown, what goes, what is refused."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clusterlm.cli import app
from clusterlm.cluster.host import Completed
from clusterlm.cluster.images import store
from clusterlm.cluster.images.record import write_record
from clusterlm.errors import ImageError
from clusterlm.image_paths import ImagePaths
from clusterlm.node.files import write_json
from clusterlm.paths import RunPaths, runs_dir
from clusterlm.supervise.history import record as record_event
from tests.images.test_import import record_of

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


class Docker:
    """A host with a docker that has every image and notes what it is asked."""

    def __init__(self, *, is_down: bool = False) -> None:
        self.is_down = is_down
        self.calls: list[Sequence[str]] = []

    def has(self, program: str) -> bool:
        return program == "docker"

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0) -> Completed:
        self.calls.append(argv)
        client = json.dumps({"Client": {"Version": "20.10.24", "Arch": "amd64"}})
        if self.is_down:
            return Completed(
                tuple(argv), 1, client, "Cannot connect to the Docker daemon at unix:///x"
            )
        if "inspect" in argv:
            return Completed(tuple(argv), 0, '[{"Id": "sha256:1", "Config": {}}]', "")
        return Completed(tuple(argv), 0, client, "")

    def stream(self, argv: Sequence[str], each: Callable[[str], None]) -> int:
        raise AssertionError(argv)


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images; B is the newest and has a file, C is used by a run that has not ended."""
    folder = tmp_path / "images"
    monkeypatch.setenv("CLUSTERLM_IMAGES_DIR", str(folder))
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path / "runs"))
    folder.mkdir()
    for recipe, age_s, fields in ((A, 7200, {}), (B, 60, {"file": "f"}), (C, 3 * 86400, {})):
        paths = ImagePaths(recipe)
        paths.context.mkdir(parents=True)
        (paths.context / "Dockerfile").write_text("FROM x\n")
        known: dict[str, Any] = {"built": time.time() - age_s}
        if fields:
            paths.squashfs.write_bytes(b"hsqs" * 1_000_000)
            seal = {"bytes": 4_000_000, "sha256": "0" * 64}
            write_json(paths.squashfs.with_name(f"{paths.squashfs.name}.json"), seal)
            known |= {"file": paths.squashfs.name, "file_bytes": 4_000_000}
        write_record(paths, record_of(recipe, **known))
    add_run("alive", C)
    add_run("over", B, ended=True)
    return folder


def add_run(name: str, recipe: str, *, ended: bool = False) -> None:
    run = RunPaths(runs_dir() / name)
    run.root.mkdir(parents=True)
    write_json(run.lock, {"image": {"recipe": recipe, "runtime": "docker"}})
    record_event(run, "created", run=name, cluster="slurm", version="0.1.0")
    if ended:
        record_event(run, "ended", state="DONE", cause=None, evidence="", phase="train")


def types(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    if done.exception and not isinstance(done.exception, SystemExit):
        return 2, str(done.exception)
    return done.exit_code, done.output


def test_images_are_listed_with_their_runs() -> None:
    code, text = types("images", "ls")
    assert code == 0
    rows = text.splitlines()
    assert rows[0].split() == ["RECIPE", "BASE", "TORCH", "SIZE", "AGE", "FILE", "RUNS"]
    assert [row.split()[0] for row in rows[1:]] == ["b" * 16, "a" * 16, "c" * 16]
    assert rows[1].endswith(f"4 MB  1 min  {'b' * 16}.sqsh  over")
    assert "  2 h " in rows[2]
    # a star: has not ended
    assert rows[3].endswith("3 d    (docker)               alive*")


def test_images_are_listed_for_programs(images: Path) -> None:
    _, text = types("images", "ls", "--json")
    rows = json.loads(text)
    assert rows[0]["file"] == str(images / f"{'b' * 16}.sqsh")
    assert rows[0]["runs"] == ["over"]
    assert rows[2]["unfinished"] == ["alive"]
    assert rows[1]["file"] is None


def test_no_images_is_said(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERLM_IMAGES_DIR", str(images / "none"))
    assert types("images", "ls") == (0, f"no images in {images}/none\n")


def test_a_removed_image_leaves_nothing(images: Path) -> None:
    docker, lines = Docker(), []
    image = store.choose(store.stored_images(), ["bb"])[0]
    freed = store.remove(image, docker, lines.append)
    assert freed == 4_000_000 + len("FROM x\n")
    assert not [p for p in images.rglob("*") if "b" * 16 in p.name]
    assert ["docker", "rmi", f"clusterlm:{'b' * 16}"] in docker.calls
    assert lines == []
    assert len(store.stored_images()) == 2


def test_a_daemon_that_is_down_is_a_note() -> None:
    lines: list[str] = []
    store.remove(store.choose(store.stored_images(), ["aa"])[0], Docker(is_down=True), lines.append)
    assert lines[0].startswith(f"note: clusterlm:{'a' * 16} stays in docker: docker is installed")


def test_what_an_unfinished_run_uses_is_not_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clusterlm.cluster.host.LocalHost", Docker)
    code, text = types("images", "rm", "c")
    assert code == 2
    assert f"{'c' * 16}  alive" in text
    assert "--force" in text
    assert types("images", "rm", "c", "--force")[0] == 0
    assert len(store.stored_images()) == 2


def test_a_beginning_must_fit_one_image() -> None:
    with pytest.raises(ImageError, match=f"no image begins with x; there are: {'b' * 16}"):
        store.choose(store.stored_images(), ["x"])
    write_record(ImagePaths("ab" * 32), record_of("ab" * 32))
    with pytest.raises(ImageError, match="several images begin with a; there are: "):
        store.choose(store.stored_images(), ["a"])


def test_an_image_in_the_making_is_not_removed() -> None:
    image = store.choose(store.stored_images(), ["aa"])[0]
    with image.paths.lock.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ImageError, match="is being built or imported right now"):
            store.remove(image, Docker(), print)
    assert len(store.stored_images()) == 3


def test_gc_keeps_the_newest_and_what_is_used(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusterlm.cluster.host.LocalHost", Docker)
    dead = images / f".{'d' * 16}.sqsh.importing.1234"
    busy = images / f".{'e' * 16}.sqsh.importing.99"
    aside = images / "build" / f".{'d' * 16}.0123456789ab"
    dead.write_bytes(b"half")
    busy.write_bytes(b"half")
    aside.mkdir()
    with ImagePaths("e" * 64).lock.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        code, text = types("images", "gc", "--keep", "1", "--dry-run")
        assert code == 0
        assert f"would remove {'a' * 16}" in text
        assert dead.exists()
        assert len(store.stored_images()) == 3
        code, text = types("images", "gc", "--keep", "1")
    assert f"removed {'a' * 16}" in text
    assert text.endswith("2 of 3 images stay\n")
    assert not dead.exists()
    assert not aside.exists()
    assert busy.exists()
    assert [i.record.recipe for i in store.stored_images()] == [B, C]


def test_a_broken_record_is_left_alone(images: Path) -> None:
    (images / f"{'9' * 16}.json").write_text("{")
    (images / f"{'8' * 16}.json").write_text('{"recipe": "8"}')
    assert len(store.stored_images()) == 3
    assert os.listdir(images)


@pytest.mark.parametrize(
    "odd", [{"built": "abc"}, {"file": 5}, {"size_bytes": "x"}, {"file": "../../etc/passwd"}]
)
def test_a_record_that_a_hand_has_damaged_harms_no_other(odd: dict[str, Any]) -> None:
    found = json.loads(ImagePaths(A).record.read_text())
    ImagePaths(A).record.write_text(json.dumps({**found, **odd}))
    assert [image.record.recipe for image in store.stored_images()] == [B, C]


def test_what_a_failed_build_leaves_goes_and_a_running_one_stays() -> None:
    failed, running = ImagePaths("d" * 64), ImagePaths("e" * 64)
    for paths in (failed, running):
        paths.context.mkdir(parents=True)
        paths.lock.touch()
    with running.lock.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert set(store.remains()) == {failed.context, failed.lock}
    assert set(store.remains()) == {p for x in (failed, running) for p in (x.context, x.lock)}
