"""What a cleaning meets in a folder that has become odd: it takes nothing that is needed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from clusterlm.cluster.remote import sweep
from clusterlm.errors import ClusterLMError
from tests.cluster.remote.test_cleaning import Folder, make_young


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path / "shared" / "runs"))
    monkeypatch.setenv("CLUSTERLM_CONFIG", str(tmp_path / "none.yaml"))
    return Folder(tmp_path / "shared")


@pytest.mark.parametrize("lost", ["runs", "runs/r"])
def test_a_link_that_leads_nowhere_is_a_file_system_that_is_not_mounted(
    folder: Folder, tmp_path: Path, lost: str
) -> None:
    code = folder.tree("snapshots", "a")
    folder.run("r", names=f"{code}/job.yaml")
    (folder.root / lost).rename(tmp_path / "work")
    (folder.root / lost).symlink_to(tmp_path / "unmounted")
    answer = folder.look(remove=True)
    assert any("may need stays" in note for note in answer["notes"])
    assert code.is_dir()


def test_a_run_that_may_not_be_looked_at_blinds_by_every_python(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = folder.tree("snapshots", "a")
    root = folder.run("r", names=f"{code}/job.yaml").paths.root

    def refuse(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    # as Python 3.14 answers where the folder is another user's
    monkeypatch.setattr(Path, "exists", lambda p: os.path.exists(p) and p.parent != root)
    monkeypatch.setattr(Path, "is_dir", lambda p: os.path.isdir(p) and p != root)
    monkeypatch.setattr(os, "listdir", refuse)
    assert "may need stays" in folder.look()["notes"][0]


def test_in_the_bin_lies_only_what_has_a_name_of_ours(folder: Folder) -> None:
    (folder.root / ".removed" / "letters").mkdir(parents=True)
    (folder.root / ".removed" / ("a" * 32)).mkdir()
    assert folder.clean() == {"leftovers": 1}
    assert (folder.root / ".removed" / "letters").is_dir()


def test_code_that_is_called_between_look_and_removal_keeps_its_packages(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for letter, ago in (("a", 7200), ("b", 60)):
        folder.software(f"deps-{letter * 12}", ago=7200)
        folder.software(f"0.1.0-{letter * 12}", f"deps-{letter * 12}", ago=ago)
    folder.now = time.time()
    assert folder.look()["groups"][0]["names"] == ["0.1.0-aaaaaaaaaaaa", "deps-aaaaaaaaaaaa"]
    make_place = sweep._place

    def called_meanwhile(root: Path) -> Path:
        (root / "software" / "0.1.0-aaaaaaaaaaaa" / "USED").touch()
        return make_place(root)

    monkeypatch.setattr(sweep, "_place", called_meanwhile)
    assert folder.clean() == {}
    assert (folder.root / "software" / "deps-aaaaaaaaaaaa" / "lib.py").exists()


def test_notes_of_another_shape_are_told_or_keep_the_packages(folder: Folder) -> None:
    folder.software("deps-aaaaaaaaaaaa")
    code = folder.software("0.1.0-aaaaaaaaaaaa")
    (code / "install.json").write_text('{"deps": ["deps-aaaaaaaaaaaa"]}')
    assert folder.clean() == {}
    note = folder.root / "objects" / ".asked" / ("a" * 64)
    note.parent.mkdir(parents=True)
    note.write_text("5")
    make_young(folder, note)
    with pytest.raises(ClusterLMError, match="is damaged"):
        folder.look()
