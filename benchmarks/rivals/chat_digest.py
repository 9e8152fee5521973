"""Digests of the ids and of the trained tokens of prepared conversations, in their order."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rivals.common import Task, run
from clusterlm.data.cache import open_cache
from clusterlm.data.store.shards import open_shard, read_chunk
from clusterlm.data.whole import shards_folder


def digest(task: Task) -> dict[str, Any]:
    """What `chat_template` prints, of the shards."""
    root = Path(os.environ["CLUSTERLM_CACHE_DIR"]) / "bench"
    ids, mask = hashlib.sha256(), hashlib.sha256()
    tokens = trained = 0
    for about in open_cache(root).manifest["shards"]:
        shard = open_shard(shards_folder(root) / about["key"])
        assert shard is not None
        for row in shard.chunks:
            chunk = read_chunk(shard.root, row, shard.dtype)
            assert chunk is not None
            bits = np.frombuffer(chunk.trained or b"", dtype=np.uint8)
            own = np.unpackbits(bits, count=row.num_tokens)
            ids.update(chunk.tokens.astype("<u4"))
            mask.update(own)
            tokens, trained = tokens + row.num_tokens, trained + int(own.sum())
    return {
        "tokens": tokens,
        "trained": trained,
        "ids": ids.hexdigest(),
        "mask": mask.hexdigest(),
    }


if __name__ == "__main__":
    run(digest)
