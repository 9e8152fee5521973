"""Chunks that are encoded already: in whole shards, and in what killed writers left.

A file that has grown, or one put between others, changes the shard it lies in, but few of its
chunks: those that are known are copied, at the speed of the disk.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from clusterlm.data.store.aside import dead_folders
from clusterlm.data.store.shards import JOURNAL, ChunkRow, open_shard
from clusterlm.node.files import read_json, read_jsonl

KnownChunks = dict[str, tuple[Path, ChunkRow]]


def known_chunks(shards: Path, dtype: str) -> KnownChunks:
    """Every chunk below `shards` with tokens of this type, by its key."""
    found: KnownChunks = {}
    if not shards.is_dir():
        return found
    for root in sorted(shards.iterdir()):
        shard = None if root.name.startswith(".") else open_shard(root)
        if shard is not None and shard.dtype == dtype:
            found |= {row.key: (root, row) for row in shard.chunks}
    for folder in dead_folders(shards, now=time.time()):
        if (read_json(folder / "dtype.json") or {}).get("dtype") == dtype:
            rows, _ = read_jsonl(folder / JOURNAL)
            for row in rows:
                # a line that was cut off, or of an older version
                with suppress(TypeError, KeyError):
                    found[row["key"]] = (folder, ChunkRow.of(row))
    return found
