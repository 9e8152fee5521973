"""A job's pickles are loaded only where nobody else could have put them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from clusterlm.node.private import NotPrivate, refuse_open_folder
from clusterlm.paths import RunPaths
from clusterlm.supervise.history import read_history, record


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.mark),))


def start(run: RunPaths) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "1"}
    env |= {"SUBMITIT_LOCAL_NTASKS": "1", "SUBMITIT_LOCAL_NNODES": "1"}
    env |= {"SUBMITIT_LOCAL_LOCALID": "0", "SUBMITIT_LOCAL_GLOBALID": "0"}
    argv = [sys.executable, "-m", "clusterlm.supervise.start", str(run.submitit)]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    paths = RunPaths(tmp_path / "runs" / "r")
    paths.submitit.mkdir(parents=True)
    for folder in (paths.root.parent, paths.root, paths.submitit):
        folder.chmod(0o700)
    record(paths, "created", run="r", cluster="local", version="0")
    (paths.submitit / "1_submitted.pkl").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    return paths


@pytest.mark.parametrize("which", ["submitit", "run", "runs"])
@pytest.mark.parametrize("mode", [0o770, 0o702, 0o2770])
def test_a_folder_that_others_may_change_starts_nothing(
    run: RunPaths, which: str, mode: int
) -> None:
    folder = {"submitit": run.submitit, "run": run.root, "runs": run.root.parent}[which]
    folder.chmod(mode)
    done = start(run)
    assert done.returncode == 1
    assert f"{folder}: " in done.stderr
    assert "chmod go-w" in done.stderr
    assert not run.root.parent.with_name("ran").exists()
    end = read_history(run).end
    assert end is not None
    assert end["state"] == "STOPPED"
    assert "chmod go-w" in end["evidence"]


def test_a_private_folder_is_trusted(run: RunPaths) -> None:
    # the oracle: here the pickle does run
    start(run)
    assert run.root.parent.with_name("ran").exists()


def test_a_shared_folder_with_the_sticky_bit_may_hold_runs(run: RunPaths) -> None:
    run.root.parent.chmod(0o1777)
    refuse_open_folder(run.root)


def test_a_link_and_a_folder_of_somebody_else_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(NotPrivate, match="no folder of its own"):
        refuse_open_folder(tmp_path / "link")
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(NotPrivate, match="belongs to user"):
        refuse_open_folder(tmp_path / "real")
