"""Sends contents to a cluster: only those that it lacks, the small ones in one stream.

A cut at any moment leaves whole contents, and of a large one a part that the next try goes on from.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from clusterlm.cluster.remote.progress import now_and_then
from clusterlm.cluster.remote.snapshot import spoken_size
from clusterlm.cluster.remote.there import blob_path
from clusterlm.cluster.remote.tree import CHUNK, Tree
from clusterlm.cluster.ssh.transfer import send_file
from clusterlm.errors import ClusterLMError, SshError, SshRefused

if TYPE_CHECKING:
    from clusterlm.cluster.remote.forward import Remote

LARGE = 16 * 2**20
"""From here on a content goes by itself, and is resumed in the middle."""
TRIES_WITHOUT_PROGRESS = 5
LONG_S = 30.0
"""A try that lasted so long has brought something."""
KEPT_FREE = 0.01
"""Share of what is sent that must be free besides: a full disk harms others."""


def send_contents(
    remote: Remote,
    blobs: Mapping[str, int],
    sources: Mapping[str, Path],
    *,
    tell: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Bring every content to the cluster's store.

    Args:
        remote: the cluster.
        blobs: sizes by sha256.
        sources: a file of this machine for each.
        tell: gets a line where something is noteworthy.
        sleep: between tries.
        clock: how long a try took.

    Returns:
        Bytes that had to be sent.

    Raises:
        ClusterLMError: there is no room, or a file has changed since it was hashed.
        ConnectionLost: again and again, without anything having arrived in between.
    """
    lacking = missing(remote, blobs)
    total = sum(blobs[sha] for sha in lacking)
    tries = 0
    while lacking:
        begun = clock()
        try:
            _send(remote, {sha: blobs[sha] for sha in lacking}, sources, tell)
        except SshRefused:
            raise
        except SshError as error:
            # also one that could not be made again: the look above came through
            tries += 1
            if tries >= TRIES_WITHOUT_PROGRESS:
                raise
            tell(f"{error}; going on with what is missing")
            sleep(min(2.0**tries, 20.0))
        before, lacking = len(lacking), missing(remote, blobs)
        # of a large file a part has come, too
        if len(lacking) < before or clock() - begun > LONG_S:
            tries = 0
    return total


def missing(remote: Remote, blobs: Mapping[str, int]) -> list[str]:
    """Digests of what the cluster lacks, the small ones first.

    Raises:
        ClusterLMError: its disk has no room for them.
    """
    answer = remote.there("missing", {"blobs": dict(blobs)})
    lacking = sorted(set(map(str, answer["missing"])) & set(blobs), key=lambda sha: blobs[sha])
    need = sum(blobs[sha] for sha in lacking)
    free = int(answer["free_bytes"])
    if need * (1 + KEPT_FREE) > free:
        raise ClusterLMError(
            f"{remote.name}: {spoken_size(need)} are to be sent, and {remote.folder} has "
            f"{spoken_size(free)} free"
        )
    return lacking


def sources_of_tree(tree: Tree, paths: Mapping[str, Path]) -> dict[str, Path]:
    """A file of this machine for each content of a tree."""
    return {entry.sha256: paths[path] for path, entry in tree.files.items()}


def _send(
    remote: Remote,
    blobs: Mapping[str, int],
    sources: Mapping[str, Path],
    tell: Callable[[str], None],
) -> None:
    small = {sha: size for sha, size in blobs.items() if size < LARGE}
    if small:
        stream = cast(BinaryIO, io.BufferedReader(_Pieces(_packed(small, sources)), CHUNK))
        remote.take(stream)
    for sha, size in blobs.items():
        if size >= LARGE:
            target = str(blob_path(Path(remote.folder), sha))
            send_file(
                remote.transport,
                sources[sha],
                target,
                python=remote.installed.python,
                mode=0o400,
                sha256=sha,
                progress=now_and_then(sources[sha].name, tell),
            )


def _packed(blobs: Mapping[str, int], sources: Mapping[str, Path]) -> Iterator[bytes]:
    for sha, size in blobs.items():
        yield f"{sha} {size}\n".encode()
        left = size
        with sources[sha].open("rb") as file:
            while left:
                piece = file.read(min(left, CHUNK))
                if not piece:
                    raise ClusterLMError(f"{sources[sha]} has become shorter; try again")
                left -= len(piece)
                yield piece


class _Pieces(io.RawIOBase):
    """An iterator of bytes as a file to read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer)).cast("B")
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
