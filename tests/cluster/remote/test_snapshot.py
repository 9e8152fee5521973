from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest

from clusterlm.cluster.remote.git import code_state
from clusterlm.cluster.remote.hashes import Hashes
from clusterlm.cluster.remote.snapshot import Snapshot, take_snapshot
from clusterlm.cluster.remote.tree import BadTree, Entry, Tree
from clusterlm.errors import ClusterLMError
from tests.cluster.remote.conftest import git


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "jobs").mkdir(parents=True)
    (root / "jobs" / "job.yaml").write_text("name: x\n")
    (root / "train.py").write_text("print(1)\n")
    (root / ".gitignore").write_text("data/\n*.bin\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def snap(root: Path, tmp_path: Path, **further: object) -> Snapshot:
    yaml = root / "jobs" / "job.yaml"
    return take_snapshot(yaml, hashes=Hashes(tmp_path / "hashes.json"), **further)  # type: ignore[arg-type]


def test_changed_and_new_files_go_and_ignored_ones_do_not(project: Path, tmp_path: Path) -> None:
    before = snap(project, tmp_path)
    (project / "train.py").write_text("print(2)\n")
    (project / "new.py").write_text("")
    (project / "weights.bin").write_text("x")
    (project / "__pycache__").mkdir()
    (project / "__pycache__" / "a.cpython-311.pyc").write_text("x")
    after = snap(project, tmp_path)
    assert set(after.tree.files) == {".gitignore", "jobs/job.yaml", "train.py", "new.py"}
    assert after.tree.digest != before.tree.digest
    (project / "train.py").unlink()
    assert "train.py" not in snap(project, tmp_path).tree.files


def test_what_looks_like_a_secret_goes_only_when_git_tracks_it(
    project: Path, tmp_path: Path
) -> None:
    for name in (".env", "id_ed25519", "deploy.pem", "hf_token", ".env.example"):
        (project / name).write_text("x")
    taken = snap(project, tmp_path)
    assert taken.left_out == (".env", "deploy.pem", "hf_token", "id_ed25519")
    assert ".env.example" in taken.tree.files
    git(project, "add", "-f", ".env")
    assert ".env" in snap(project, tmp_path).tree.files


def test_links_stay_inside(project: Path, tmp_path: Path) -> None:
    (project / "jobs" / "same.py").symlink_to("../train.py")
    (project / "whole.py").symlink_to(project / "train.py")
    taken = snap(project, tmp_path)
    assert taken.tree.links == {"jobs/same.py": "../train.py", "whole.py": "train.py"}
    (project / "out").symlink_to("/etc")
    with pytest.raises(ClusterLMError, match="out: a link to /etc, outside of the project"):
        snap(project, tmp_path)
    # what the job names as data travels by itself
    assert "out" not in snap(project, tmp_path, leave_out=[project / "out"]).tree.links


def test_too_much_is_refused_with_the_largest_files(project: Path, tmp_path: Path) -> None:
    (project / "big.txt").write_text("x" * 5000)
    with pytest.raises(ClusterLMError, match=r"5\.0 kB  big\.txt"):
        snap(project, tmp_path, limit=4000)


def test_without_git_the_folder_of_the_yaml_goes(tmp_path: Path) -> None:
    root = tmp_path / "plain"
    (root / "jobs" / ".venv" / "bin").mkdir(parents=True)
    (root / "jobs" / ".venv" / "pyvenv.cfg").write_text("")
    (root / "jobs" / "job.yaml").write_text("name: x\n")
    (root / "jobs" / "secrets.yaml").write_text("x")
    (root / "other.py").write_text("")
    taken = snap(root, tmp_path)
    assert (set(taken.tree.files), taken.left_out) == ({"job.yaml"}, ("secrets.yaml",))


def test_a_submodule_goes_with_its_own_files(project: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "lib.py").write_text("")
    git(inner, "init", "-q")
    git(inner, "add", ".")
    git(inner, "commit", "-qm", "x")
    git(project, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "lib")
    (project / "lib" / "new.py").write_text("")
    files = snap(project, tmp_path).tree.files
    assert {"lib/lib.py", "lib/new.py", ".gitmodules"} <= set(files)


def test_the_home_folder_is_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "job.yaml").write_text("name: x\n")
    with pytest.raises(ClusterLMError, match="folder of its own"):
        take_snapshot(tmp_path / "job.yaml", hashes=Hashes(tmp_path / "h.json"))


def test_a_dirty_tree_is_known_as_one(project: Path) -> None:
    clean = code_state(project)
    assert clean is not None
    assert (clean[0].dirty, clean[0].diff_sha256, clean[1]) == (False, None, b"")
    (project / "train.py").write_text("print(2)\n")
    dirty = code_state(project)
    assert dirty is not None
    assert dirty[0].dirty
    assert dirty[0].commit == clean[0].commit
    assert b"+print(2)" in dirty[1]


def test_a_large_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clusterlm.cluster.remote import hashes

    file = tmp_path / "large"
    file.write_bytes(b"x" * hashes.WORTH_IT)
    known = Hashes(tmp_path / "h" / "hashes.json")
    first = known.of(file, file.stat())
    known.save()
    monkeypatch.setattr(hashes, "sha256_of", lambda path: pytest.fail("read again"))
    assert Hashes(tmp_path / "h" / "hashes.json").of(file, file.stat()) == first


@pytest.mark.parametrize(
    ("files", "links"),
    [
        ({"../x": 1}, {}),
        ({"/x": 1}, {}),
        ({"a/../../x": 1}, {}),
        ({"a//b": 1}, {}),
        ({"a\nb": 1}, {}),
        ({"": 1}, {}),
        ({}, {"a": "/etc"}),
        ({}, {"a": "../x"}),
        ({}, {"a/b": "../../x"}),
        ({"a/b": 1}, {"a": "c"}),
        ({"a": 1, "a/b": 1}, {}),
    ],
)
def test_no_tree_leaves_its_folder(files: dict[str, int], links: dict[str, str]) -> None:
    with pytest.raises(BadTree):
        Tree({path: Entry("0" * 64, 1) for path in files}, links).check()


def test_a_name_that_is_no_text_is_refused(project: Path, tmp_path: Path) -> None:
    with open(os.fsencode(project) + b"/\xff.py", "w"):
        pass
    with pytest.raises(ClusterLMError, match="cannot be shown"):
        snap(project, tmp_path)


def test_what_git_tracks_behind_a_link_does_not_go(project: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "id_rsa").write_text("private")
    (project / "folder").mkdir()
    (project / "folder" / "id_rsa").write_text("no key")
    (project / "folder" / "x.py").write_text("")
    git(project, "add", "-f", ".")
    shutil.rmtree(project / "folder")
    (project / "folder").symlink_to(keys)
    with pytest.raises(ClusterLMError, match="folder: a link to .*keys, outside"):
        snap(project, tmp_path)
    # the project of somebody else may hide the link
    (project / ".gitignore").write_text("/folder\n")
    assert not [path for path in snap(project, tmp_path).tree.files if "id_rsa" in path]
    # a folder that has become a link to another one of the project
    (project / "folder").unlink()
    (project / "folder").symlink_to("jobs")
    (project / ".gitignore").write_text("")
    taken = snap(project, tmp_path)
    taken.tree.check()
    assert taken.tree.links == {"folder": "jobs"}


def test_git_starts_no_program_of_the_project_to_show_a_diff(project: Path, tmp_path: Path) -> None:
    git(project, "config", "diff.evil.textconv", f"touch {tmp_path}/ran; cat")
    (project / ".gitattributes").write_text("*.py diff=evil\n")
    (project / "train.py").write_text("print(2)\n")
    found = code_state(project)
    assert found is not None
    assert b"print(2)" in found[1]
    assert not (tmp_path / "ran").exists()


def test_a_log_that_grows_goes_as_long_as_it_was(project: Path, tmp_path: Path) -> None:
    log = project / "grows.log"
    log.write_text("step 1\n")
    status = log.stat()
    log.write_text("step 1\nstep 2\n")
    digest = Hashes(tmp_path / "hashes.json").of(log, status)
    assert digest == hashlib.sha256(b"step 1\n").hexdigest()


def test_whether_a_file_is_in_it_takes_no_walk(tmp_path: Path) -> None:
    names = [f"a/{n}/f" for n in range(20_000)]
    taken = Snapshot(tmp_path, Tree({name: Entry("0" * 64, 1) for name in names}), is_git=True)
    began = time.process_time()
    assert all(taken.holds(tmp_path / name) for name in names)
    assert taken.holds(tmp_path / "a" / "7")
    assert taken.holds(tmp_path)
    assert not taken.holds(tmp_path / "a" / "7" / "g")
    assert not taken.holds(tmp_path.parent)
    assert time.process_time() - began < 5
