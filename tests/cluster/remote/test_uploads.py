"""Which files of a path that a job names go to a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterlm.cluster.remote.hashes import Hashes
from clusterlm.cluster.remote.snapshot import Snapshot
from clusterlm.cluster.remote.tree import Tree
from clusterlm.cluster.remote.uploads import NamedPath, uploads_of
from clusterlm.errors import ClusterLMError


def uploaded(path: Path, tmp_path: Path) -> tuple[list[str], list[str]]:
    """Files and notes."""
    named = NamedPath(("data", "path"), str(path), str(path), is_data=True)
    empty = Snapshot(tmp_path / "project", Tree({}), is_git=False)
    hashes = Hashes(tmp_path / "hashes.json")
    found, _, notes = uploads_of([named], {}, empty, hashes, source="job.yaml", cluster="there")
    return sorted(found[0].tree.files), notes


def test_a_link_that_leads_back_is_not_followed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "a").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "y").write_text("y")
    (data / "a" / "x").write_text("x")
    for place, target in {"latest": ".", "a/up": "..", "a/far": "../../other"}.items():
        (data / place).symlink_to(target)
    assert uploaded(data, tmp_path) == (["data/a/far/y", "data/a/x"], [])


def test_a_yaml_does_not_take_keys_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "work").write_text("private")
    monkeypatch.setenv("HOME", str(home))
    data = tmp_path / "data"
    data.mkdir()
    for name in ("x.txt", "id_rsa", "tokenizer.json"):
        (data / name).write_text("x")
    (data / "y.txt").symlink_to(home / ".ssh" / "work")
    files, notes = uploaded(data, tmp_path)
    assert files == ["data/tokenizer.json", "data/x.txt"]
    assert notes == ["data.path: left out, as they look like secrets: id_rsa, y.txt"]
    for path in (home / ".ssh", home / ".ssh" / "work", data / "id_rsa", data / "y.txt"):
        with pytest.raises(ClusterLMError, match="key or a password"):
            uploaded(path, tmp_path)
