"""Folders on the login node are what was sent, whatever happened to them there."""

from __future__ import annotations

import hashlib
from pathlib import Path

from clusterlm.cluster.remote import there
from clusterlm.cluster.remote.tree import Entry, Tree


def test_a_link_that_was_bent_there_is_put_back(tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"print(1)").hexdigest()
    blob = there.blob_path(tmp_path, sha256)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"print(1)")
    tree = Tree({"src/a.py": Entry(sha256, 8)}, {"b.py": "src/a.py", "lib": "src"})
    request = {"kind": "snapshots", "tree": tree.to_json(), "digest": tree.digest}
    root = Path(there.assemble(tmp_path, request)["path"])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.py").write_text("print(2)")
    (root / "b.py").unlink()
    (root / "b.py").write_text("print(2)")
    (root / "lib").unlink()
    (root / "lib").symlink_to(elsewhere)
    (root / "src").rename(tmp_path / "was")
    (root / "src").symlink_to(elsewhere)
    answer = there.assemble(tmp_path, request)
    assert sorted(answer["repaired"]) == ["b.py", "lib", "src/a.py"]
    assert (root / "b.py").read_text() == "print(1)"
    assert (root / "lib" / "a.py").resolve() == (root / "src" / "a.py").absolute()
    assert (elsewhere / "a.py").read_text() == "print(2)"
    assert there.assemble(tmp_path, request)["repaired"] == []
