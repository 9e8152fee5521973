from __future__ import annotations

import os
from pathlib import Path

import pytest

from clusterlm.data.store.storage import READ_ENV, AskedFiles, MappedFiles, mount_type, open_files

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /scratch rw shared:2 master:7 - lustre 10.0.0.1@o2ib:/fs rw,flock
31 30 0:41 / /scratch/local rw - xfs /dev/nvme0n1 rw
32 22 0:42 / /home\\040dirs rw - nfs4 server:/home rw
33 22 0:43 / /data rw - ext4 /dev/sdb rw
34 33 0:44 / /data rw - fuse.sshfs host:/ rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tmp/x", "ext4"),
        ("/scratch/me/cache", "lustre"),
        ("/scratch", "lustre"),
        ("/scratchy", "ext4"),
        ("/scratch/local/cache", "xfs"),
        ("/home dirs/me", "nfs4"),
        ("/data/x", "fuse.sshfs"),
    ],
)
def test_the_innermost_mount_tells_the_filesystem(path: str, kind: str) -> None:
    assert mount_type(MOUNTS, Path(path)) == kind


def test_the_environment_decides_over_the_filesystem(tmp_path: Path) -> None:
    assert isinstance(open_files(tmp_path, {READ_ENV: "pread"}), AskedFiles)
    assert isinstance(open_files(tmp_path, {READ_ENV: "mmap"}), MappedFiles)
    assert isinstance(open_files(Path("/"), {READ_ENV: "nonsense"}), MappedFiles)


@pytest.mark.parametrize("way", ["mmap", "pread"])
def test_both_ways_read_the_same(tmp_path: Path, way: str) -> None:
    files = open_files(tmp_path, {READ_ENV: way})
    path = tmp_path / "a"
    path.write_bytes(bytes(range(200)))
    (tmp_path / "empty").write_bytes(b"")
    files.will_need(path, 10, 20)
    assert bytes(files.open(path)[50:60]) == bytes(range(50, 60))
    assert bytes(files.open(path)[190:300]) == bytes(range(190, 200))
    assert bytes(files.open(tmp_path / "empty")[0:10]) == b""


def test_few_files_are_open_at_once(tmp_path: Path) -> None:
    files = AskedFiles()
    files._most = 3
    before = len(os.listdir("/proc/self/fd"))
    for i in range(20):
        (tmp_path / str(i)).write_bytes(bytes([i]))
        assert files.open(tmp_path / str(i))[0:1] == bytes([i])
    assert len(os.listdir("/proc/self/fd")) <= before + 3
    assert files.open(tmp_path / "0")[0:1] == b"\0"
    del files
    assert len(os.listdir("/proc/self/fd")) == before
