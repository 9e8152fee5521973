"""sha256 of the stream of ids of what was prepared: ids of each document, end-of-text, as uint32.

python -m benchmarks.rivals.digest run_clm|ours ...      (the arguments of the others)
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.rivals.common import Task, eos_id_of, run

Ids = npt.NDArray[Any]


def of_run_clm(task: Task) -> Iterator[Ids]:
    """The tokenized rows in datasets' Arrow files, which have no end-of-text token."""
    import pyarrow

    eos = np.array([eos_id_of(task.tokenizer)])
    for name in (task.out / "tokenized.txt").read_text().splitlines():
        with pyarrow.memory_map(name) as source:
            for batch in pyarrow.ipc.open_stream(source):
                rows = batch.column("input_ids")
                offsets, values = rows.offsets.to_numpy(), rows.values.to_numpy()
                for start, end in zip(offsets[:-1], offsets[1:], strict=True):
                    yield values[start:end]
                    yield eos


def of_ours(task: Task) -> Iterator[Ids]:
    """The chunks of the shards, in their order; what pads the files is in none of them."""
    from clusterlm.data.cache import open_cache
    from clusterlm.data.store.shards import open_shard
    from clusterlm.data.whole import shards_folder

    root = Path(os.environ["CLUSTERLM_CACHE_DIR"]) / "bench"
    for about in open_cache(root).manifest["shards"]:
        shard = open_shard(shards_folder(root) / about["key"])
        assert shard is not None
        tokens = shard.tokens()
        for row in shard.chunks:
            yield tokens[row.token_start : row.token_start + row.num_tokens]


def digest(task: Task) -> dict[str, Any]:
    """The digest and how many ids went into it."""
    found, count = hashlib.sha256(), 0
    for ids in STREAMS[_whose](task):
        count += len(ids)
        for start in range(0, len(ids), 1 << 22):
            found.update(np.ascontiguousarray(ids[start : start + (1 << 22)], dtype="<u4"))
    return {"sha256": found.hexdigest(), "tokens": count}


STREAMS = {"run_clm": of_run_clm, "ours": of_ours}
_whose = ""

if __name__ == "__main__":
    _whose = sys.argv.pop(1)
    run(digest)
