"""Compares every byte of prepared data with what was written: files by hash, shards chunk by chunk.

Opening looks at sizes only, which takes milliseconds; this reads everything. What is damaged is
named, and taken away where that is asked for: the next preprocess makes it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusterlm.data.hashes import hash_file
from clusterlm.data.looks.store import remove_folder
from clusterlm.data.store.documents import DOCUMENT
from clusterlm.data.store.shards import StoredShard, open_shard, read_chunk
from clusterlm.data.whole import FORMAT, Manifest, shards_folder
from clusterlm.errors import CacheNotReady, DataError
from clusterlm.node.files import read_json
from clusterlm.paths import CachePaths

Report = Callable[[int, int], None]
"""Told bytes done, and bytes in all."""


@dataclass(frozen=True)
class Damage:
    """Something that is not what was written.

    Attributes:
        folder: what is to be made again: a shard, or the prepared data itself.
        what: which file, and what is wrong.
    """

    folder: Path
    what: str


@dataclass
class Verdict:
    """What was found.

    Attributes:
        num_bytes: that were read.
        num_shards, num_chunks: that were compared.
    """

    root: Path
    damages: list[Damage] = field(default_factory=list)
    num_bytes: int = 0
    num_shards: int = 0
    num_chunks: int = 0
    num_files: int = 0

    @property
    def is_whole(self) -> bool:
        return not self.damages

    def to_json(self) -> dict[str, Any]:
        """What `data verify --json` prints."""
        counts = {name: value for name, value in vars(self).items() if name.startswith("num_")}
        damages = [{"folder": str(d.folder), "what": d.what} for d in self.damages]
        return {"root": str(self.root), "whole": self.is_whole, **counts, "damages": damages}

    @property
    def folders(self) -> list[Path]:
        """What is damaged, each once."""
        return list(dict.fromkeys(damage.folder for damage in self.damages))


def verify(root: Path, report: Report) -> Verdict:
    """Read prepared data, and compare everything.

    Raises:
        CacheNotReady: there is nothing to be compared: no READY, or another format.
    """
    return _Verifier(root, report).run()


def repair(verdict: Verdict) -> list[Path]:
    """Take away what is damaged; the rest is used again. Gives the folders that went."""
    for folder in verdict.folders:
        if folder.exists():
            remove_folder(folder)
    return verdict.folders


class _Verifier:
    def __init__(self, root: Path, report: Report) -> None:
        self._root, self._report = root, report
        self._verdict = Verdict(root)
        self._total = 0

    def run(self) -> Verdict:
        manifest = self._manifest()
        if manifest is None:
            return self._verdict
        shards = manifest["shards"]
        self._total = sum(file["bytes"] for file in manifest["files"].values())
        self._total += sum(size for shard in shards for size in shard["files"].values())
        for name, file in manifest["files"].items():
            self._file(name, file["bytes"], file["xxh3"])
        # a plan may name a shard twice: two sources of one content
        for about in {shard["key"]: shard for shard in shards}.values():
            self._shard(about)
        return self._verdict

    def _manifest(self) -> Manifest | None:
        paths = CachePaths(self._root)
        ready = read_json(paths.ready)
        if ready is None:
            state = "has no READY" if self._root.is_dir() else "is not there"
            raise CacheNotReady(f"prepared data: {self._root} {state}; prepare it first")
        manifest = read_json(paths.manifest)
        if manifest is None or ready.get("manifest") != hash_file(paths.manifest):
            self._damaged(self._root, "manifest.json is not the one that READY was written for")
            return None
        if manifest.get("format") != FORMAT:
            raise CacheNotReady(
                f"prepared data: {self._root} has format {manifest.get('format')}, this version"
                f" reads {FORMAT}"
            )
        return manifest

    def _file(self, name: str, size: int, expected: str) -> None:
        path = self._root / name
        self._verdict.num_files += 1
        if problem := _wrong_size(path, size):
            self._damaged(self._root, f"{name} {problem}")
        else:
            try:
                found = hash_file(path)
            except DataError as error:
                self._damaged(self._root, str(error))
            else:
                if found != expected:
                    self._damaged(self._root, f"{name} is not what was written")
        self._count(size)

    def _shard(self, about: Manifest) -> None:
        root = shards_folder(self._root) / about["key"]
        self._verdict.num_shards += 1
        size = sum(about["files"].values())
        for name, expected in about["files"].items() if root.is_dir() else ():
            if problem := _wrong_size(root / name, expected):
                self._damaged(root, f"{name} {problem}")
        shard = _opened(root)
        if shard is None or shard.files != about["files"]:
            if root not in self._verdict.folders:
                is_there = root.is_dir()
                self._damaged(
                    root, "shard.json is not what was written" if is_there else "is missing"
                )
            self._count(size)
            return
        for number, num_bytes in _compared(shard):
            self._verdict.num_chunks += 1
            self._count(num_bytes)
            size -= num_bytes
            if number is not None:
                self._damaged(root, f"chunk {number} is not what was written")
        # padding between chunks
        self._count(size)

    def _count(self, num_bytes: int) -> None:
        self._verdict.num_bytes += num_bytes
        self._report(self._verdict.num_bytes, self._total)

    def _damaged(self, folder: Path, what: str) -> None:
        self._verdict.damages.append(Damage(folder, what))


def _compared(shard: StoredShard) -> Iterator[tuple[int | None, int]]:
    """Of each chunk: its number if it is damaged, and its bytes."""
    width = 2 if shard.dtype == "uint16" else 4
    for row in shard.chunks:
        size = row.num_tokens * width + row.num_documents * DOCUMENT.itemsize
        size += -(-row.num_tokens // 8) if row.is_masked else 0
        size += row.num_tokens if row.is_coded else 0
        is_sound = read_chunk(shard.root, row, shard.dtype) is not None
        yield None if is_sound else row.number, size


def _opened(root: Path) -> StoredShard | None:
    try:
        return open_shard(root)
    except (KeyError, TypeError, ValueError, AttributeError):
        # a shard.json that is JSON, and not ours
        return None


def _wrong_size(path: Path, size: int) -> str | None:
    if not path.is_file():
        return "is missing"
    found = path.stat().st_size
    return None if found == size else f"has {found:,} bytes, {size:,} were written"
