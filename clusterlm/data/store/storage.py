"""How bytes of prepared files are read: mapped into memory, or asked for.

Mapped files are best where the files lie on a disk of the node: all ranks share one copy, and what
was read once costs a copy in memory. On a network filesystem each page of a mapped file that is
touched for the first time is a round trip of its own (Lustre: 28 MiB/s, sglang PR 37806), and some
refuse many maps (WekaFS: EPERM at 888, Megatron PR 5004); there a stretch is asked for with one
pread, and the stretches of the next batch are announced while this one is trained.
"""

from __future__ import annotations

import mmap
import os
import resource
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Protocol

READ_ENV = "CLUSTERLM_READ"
"""`mmap` or `pread`: read so, wherever the files lie."""

NETWORK_TYPES = {
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "wekafs", "ceph", "cifs", "smb3", "9p"),
    *("afs", "panfs", "pvfs2", "orangefs", "glusterfs", "virtiofs", "quobyte", "juicefs"),
}
Bytes = bytes | memoryview


class ByteFile(Protocol):
    """Stretches of bytes out of a file."""

    def __getitem__(self, stretch: slice) -> Bytes: ...


class ByteFiles(Protocol):
    """Opens files to be read in stretches."""

    can_announce: bool

    def open(self, path: Path) -> ByteFile: ...

    def will_need(self, path: Path, start: int, count: int) -> None:
        """Announce a stretch that is going to be read."""
        ...


def open_files(folder: Path, environ: Mapping[str, str] | None = None) -> ByteFiles:
    """The way to read that suits where `folder` lies."""
    asked = (os.environ if environ is None else environ).get(READ_ENV)
    way = asked if asked in WAYS else "pread" if is_on_network(folder) else "mmap"
    return WAYS[way]()


class MappedFiles:
    """Files that are mapped whole."""

    # most of what is mapped is in memory, and a call for each stretch would cost more
    can_announce = False

    def open(self, path: Path) -> ByteFile:
        with path.open("rb") as handle:
            if not os.fstat(handle.fileno()).st_size:
                # an empty file cannot be mapped
                return memoryview(b"")
            return memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))

    def will_need(self, path: Path, start: int, count: int) -> None:
        pass


class AskedFiles:
    """Files of which each stretch is one pread.

    When too many are open, the one used longest ago is closed.
    """

    can_announce = True

    def __init__(self) -> None:
        self._handles: OrderedDict[Path, int] = OrderedDict()
        # the other half is for everything else in the process
        self._most = max(8, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

    def open(self, path: Path) -> ByteFile:
        return _AskedFile(self, path)

    def read(self, path: Path, start: int, count: int) -> bytes:
        """`count` bytes from `start` on, fewer at the end of the file."""
        handle = self._handle(path)
        data = os.pread(handle, count, start)
        # a signal or a limit of the filesystem may cut a long read short
        while len(data) < count and (
            more := os.pread(handle, count - len(data), start + len(data))
        ):
            data += more
        return data

    def will_need(self, path: Path, start: int, count: int) -> None:
        os.posix_fadvise(self._handle(path), start, count, os.POSIX_FADV_WILLNEED)

    def _handle(self, path: Path) -> int:
        handle = self._handles.get(path)
        if handle is not None:
            self._handles.move_to_end(path)
            return handle
        while len(self._handles) >= self._most:
            os.close(self._handles.popitem(last=False)[1])
        handle = self._handles[path] = os.open(path, os.O_RDONLY)
        return handle

    def __del__(self) -> None:
        for handle in self._handles.values():
            os.close(handle)


class _AskedFile:
    def __init__(self, files: AskedFiles, path: Path) -> None:
        self._files, self._path = files, path

    def __getitem__(self, stretch: slice) -> Bytes:
        return self._files.read(self._path, stretch.start, stretch.stop - stretch.start)


WAYS: dict[str, type[MappedFiles] | type[AskedFiles]] = {"mmap": MappedFiles, "pread": AskedFiles}


def is_on_network(path: Path) -> bool:
    """Whether `path` lies on a filesystem of other machines; False where that cannot be told."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    kind = mount_type(mounts, path.resolve())
    # fuse.sshfs, fuse.glusterfs ...: all that come to a cluster are of the network
    return kind in NETWORK_TYPES or kind.startswith("fuse.")


@lru_cache(maxsize=16)
def mount_type(mounts: str, path: Path) -> str:
    """Type of the filesystem that holds `path`, from the text of mountinfo; "" for none."""
    best, kind = "", ""
    for line in mounts.splitlines():
        # 36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw
        front, _, back = line.partition(" - ")
        fields = front.split(" ")
        if len(fields) < 5 or not back:
            continue
        # a space in a path is written as \040
        point = fields[4].replace("\\040", " ")
        # of two mounts on one point the later one is seen
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, back.split(" ")[0]
    return kind
