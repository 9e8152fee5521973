from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterlm.node import manifest
from clusterlm.node import seal as seal_module
from clusterlm.node.files import read_json, write_json
from clusterlm.node.manifest import MANIFEST, SealError
from clusterlm.node.seal import (
    newest_step,
    newest_unsealed,
    newest_verified,
    prune,
    quarantine,
    seal,
    verify,
)

ALSO_WITH_TMP_PATH = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


def make(root: Path, step: int, *, sealed: bool = True) -> Path:
    folder = root / f"checkpoint-{step}"
    (folder / "shards").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4 + bytes([step % 256]))
    (folder / "shards" / "rank0.pt").write_bytes(b"\x00" * 64)
    (folder / "empty").touch()
    if sealed:
        seal(folder, step, attempt=2)
    return folder


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_a_sealed_folder_is_whole_and_its_manifest_says_what_it_holds(tmp_path: Path) -> None:
    folder = make(tmp_path, 50)
    assert verify(folder) is None
    found = read_json(folder / MANIFEST)
    assert found is not None
    assert (found["step"], found["attempt"]) == (50, 2)
    assert set(found["files"]) == {"model.safetensors", "shards/rank0.pt", "empty"}
    assert found["files"]["shards/rank0.pt"]["bytes"] == 64


@ALSO_WITH_TMP_PATH
@given(place=st.integers(0, 1024), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(tmp_path: Path, place: int, bit: int) -> None:
    folder = tmp_path / "checkpoint-7"
    if not folder.exists():
        make(tmp_path, 7)
    flip(folder / "model.safetensors", place, bit)
    assert verify(folder) == "model.safetensors: content is not what was sealed"
    assert verify(folder, full=False) is None
    flip(folder / "model.safetensors", place, bit)
    assert verify(folder) is None


@ALSO_WITH_TMP_PATH
@given(data=st.data(), bit=st.integers(0, 7))
def test_a_damaged_manifest_never_raises_and_never_says_something_else(
    tmp_path: Path, data: st.DataObject, bit: int
) -> None:
    folder = tmp_path / "checkpoint-7"
    if not folder.exists():
        make(tmp_path, 7)
    path = folder / MANIFEST
    before, text = read_json(path), path.read_bytes()
    assert before is not None
    flip(path, data.draw(st.integers(0, len(text) - 1)), bit)
    if verify(folder) is None:
        after = read_json(path)
        assert after is not None
        assert after["step"] == before["step"]
        for name, entry in after["files"].items():
            assert before["files"][name] | {} == {k: entry[k] for k in ("bytes", "sha256")}
    path.write_bytes(text)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / MANIFEST).unlink(), "no readable MANIFEST.json"),
        (lambda f: (f / MANIFEST).write_text('{"step": 7, "fi'), "no readable MANIFEST.json"),
        (lambda f: (f / MANIFEST).write_text("{}"), "MANIFEST.json lists no files"),
        (lambda f: (f / "empty").unlink(), "empty: no such file or directory"),
        (lambda f: os.truncate(f / "model.safetensors", 9), "model.safetensors: 9 bytes instead"),
        (lambda f: (f / "empty").write_text("x"), "empty: 1 bytes instead of 0"),
        (lambda f: f.rename(f.with_name("checkpoint-8")), "MANIFEST.json is of step 7"),
        (lambda f: (f / "shards/rank0.pt").write_bytes(b"\x01" * 64), "shards/rank0.pt: content"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: object, reason: str) -> None:
    folder = make(tmp_path, 7)
    damage(folder)  # type: ignore[operator]
    (folder,) = tmp_path.iterdir()
    found = verify(folder)
    assert found is not None
    assert found.startswith(reason)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../b"])
def test_a_manifest_cannot_point_out_of_its_folder(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path, 7)
    content = json.loads((folder / MANIFEST).read_text())
    content["files"][name] = {"bytes": 0, "sha256": ""}
    write_json(folder / MANIFEST, content)
    assert verify(folder) == f"{name}: outside of the folder"


def test_folders_may_be_text_as_they_come_from_the_environment(tmp_path: Path) -> None:
    folder = make(tmp_path, 7, sealed=False)
    assert seal(str(folder), 7, 1) == folder / MANIFEST
    assert verify(str(folder)) is None
    assert newest_verified(str(tmp_path)).newest == folder
    assert newest_step(str(tmp_path)) == 7
    assert newest_unsealed(str(tmp_path)) is None
    assert prune(str(tmp_path), 1) == []
    assert quarantine(str(folder), "bit rot").name == "checkpoint-7.broken-1"


def test_an_empty_folder_is_not_sealed(tmp_path: Path) -> None:
    with pytest.raises(SealError, match="no files"):
        seal(tmp_path, 1, 1)


def test_a_file_that_changes_meanwhile_is_not_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path, 7, sealed=False)
    real = manifest._hash_stream

    def hash_while_somebody_writes(fd: int) -> str:
        (folder / "empty").write_text(str(time.monotonic_ns()))
        return real(fd)

    monkeypatch.setattr(manifest, "_hash_stream", hash_while_somebody_writes)
    with pytest.raises(SealError, match="changed while"):
        seal(folder, 7, 1)
    assert not (folder / MANIFEST).exists()


def test_sealing_again_takes_the_new_content(tmp_path: Path) -> None:
    folder = make(tmp_path, 7)
    flip(folder / "model.safetensors", 3)
    seal(folder, 7, 3)
    assert verify(folder) is None


def test_resume_takes_the_highest_step_that_is_whole_and_tells_what_it_passed(
    tmp_path: Path,
) -> None:
    for step in (9, 10, 100):
        make(tmp_path, step)
    half = make(tmp_path, 110, sealed=False)
    flip(tmp_path / "checkpoint-100" / "model.safetensors", 5)
    found = newest_verified(tmp_path)
    assert found.newest == tmp_path / "checkpoint-10"
    assert [path for path, _ in found.rejected] == [half, tmp_path / "checkpoint-100"]
    assert newest_verified(tmp_path, full=False).newest == tmp_path / "checkpoint-100"
    assert newest_step(tmp_path) == 100


def test_no_checkpoints_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "notes.txt").touch()
    for root in (tmp_path, tmp_path / "absent"):
        assert newest_verified(root) == (None, [])
        assert newest_step(root) is None
        assert newest_unsealed(root) is None
        assert prune(root, 1) == []


def test_a_quarantined_checkpoint_is_out_of_sight_and_says_why(tmp_path: Path) -> None:
    first = quarantine(make(tmp_path, 7), "bit rot")
    second = quarantine(make(tmp_path, 7), "again")
    assert [first.name, second.name] == ["checkpoint-7.broken-1", "checkpoint-7.broken-2"]
    assert read_json(first / "BROKEN.json")["reason"] == "bit rot"  # type: ignore[index]
    assert newest_verified(tmp_path) == (None, [])
    assert newest_unsealed(tmp_path, now=time.time() + 9) is None


@ALSO_WITH_TMP_PATH
@given(
    states=st.lists(st.sampled_from(["whole", "short", "half"]), max_size=6), keep=st.integers(1, 3)
)
def test_pruning_leaves_the_newest_whole_ones(
    tmp_path_factory: pytest.TempPathFactory, states: list[str], keep: int
) -> None:
    root = tmp_path_factory.mktemp("root")
    for step, state in enumerate(states):
        folder = make(root, step, sealed=state != "half")
        if state == "short":
            (folder / "shards/rank0.pt").write_bytes(b"")
    whole = [step for step, state in enumerate(states) if state == "whole"]
    removed = {int(path.name.partition("-")[2]) for path in prune(root, keep)}
    kept = whole[-keep:]
    for step, state in enumerate(states):
        assert (root / f"checkpoint-{step}").exists() == (step not in removed)
        if step in removed:
            assert len(kept) == keep
            assert step < kept[0]
            assert state != "half"
    assert set(whole) - set(kept) <= removed


def test_a_removal_that_was_cut_off_leaves_nothing_that_grows(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        make(tmp_path, step)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seal_module.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(tmp_path, 2)
    # what is half removed is no checkpoint any more, and goes away with the next removal
    assert newest_verified(tmp_path).newest == tmp_path / "checkpoint-3"
    prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-3"]


def test_pruning_everything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        prune(tmp_path, 0)


def test_of_unsealed_ones_the_highest_at_rest_counts(tmp_path: Path) -> None:
    for step in (5, 30):
        make(tmp_path, step, sealed=False)
    (tmp_path / "checkpoint-20.pt").touch()
    (tmp_path / "checkpoint-40").mkdir()
    now = time.time()
    old = now - 60
    for path in [*tmp_path.rglob("*")]:
        os.utime(path, (old, old))
    os.utime(tmp_path / "checkpoint-30" / "shards" / "rank0.pt", (now, now))
    assert newest_unsealed(tmp_path, now=now + 1) == tmp_path / "checkpoint-20.pt"
    assert newest_unsealed(tmp_path, now=now + 6) == tmp_path / "checkpoint-30"
    assert newest_unsealed(tmp_path, now=old + 1) is None


def test_a_script_seals_from_the_command_line_unless_it_is_fenced(tmp_path: Path) -> None:
    folder = make(tmp_path, 7, sealed=False)
    env = {**os.environ, "CLUSTERLM_RUN_DIR": str(tmp_path), "CLUSTERLM_ATTEMPT": "2"}
    argv = [sys.executable, "-m", "clusterlm.node.seal", str(folder), "--step", "7"]
    assert subprocess.run(argv, env=env).returncode == 0
    assert verify(folder) is None
    write_json(tmp_path / "LEASE", {"attempt": 3})
    assert subprocess.run(argv, env=env).returncode == 75
    argv[3] = str(tmp_path / "absent")
    (tmp_path / "LEASE").unlink()
    assert subprocess.run(argv, env=env).returncode == 2
