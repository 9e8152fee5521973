"""clusterlm's data phase as a job runs it: `preprocess` on a fresh cache folder.

With `--again` the cache is there and only opened, as each rank of a training run does. ENGINE,
SOURCE (text or chat) and PACKING come from the environment.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.rivals.common import Task, bytes_of, files_under, run


class Timeline:
    """When each stage of the phase was first told of, and how many bytes were done when."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._stages: dict[str, float] = {}
        self._bytes_at: list[tuple[float, int]] = []

    def __call__(self, progress: Any) -> None:
        now = time.perf_counter() - self._began
        # "tokenizing 3.1 MB of ..." -> "tokenizing"
        self._stages.setdefault(re.sub(r"[\d.,]+.*", "", progress.text).strip(), now)
        if progress.total and progress.done:
            self._bytes_at.append((now, progress.done))

    def seconds(self) -> dict[str, float]:
        """How long each stage took; the last one until now."""
        ends = [*list(self._stages.values())[1:], time.perf_counter() - self._began]
        stages = zip(self._stages.items(), ends, strict=True)
        return {stage: round(end - start, 3) for (stage, start), end in stages}

    def steady_mb_s(self) -> float | None:
        """Source bytes a second between the first and the last that were told of."""
        if len(self._bytes_at) < 2:
            return None
        (start, before), (end, after) = self._bytes_at[0], self._bytes_at[-1]
        return (after - before) / 1e6 / max(1e-3, end - start)


def prepare(task: Task) -> dict[str, Any]:
    """Prepare the source, or open what was prepared."""
    cache = Path(os.environ["CLUSTERLM_CACHE_DIR"])
    if task.again:
        from clusterlm.data.cache import open_cache

        blocks = open_cache(cache / "bench").split("train")
        return {"first": len(blocks.batch(range(8))["input_ids"])}
    from clusterlm.data.preprocess import preprocess
    from clusterlm.spec.data import Data

    data = Data.model_validate(
        {
            "tokenizer": {"name": str(task.tokenizer)},
            "sources": [{"kind": os.environ.get("SOURCE", "text"), "path": str(task.corpus)}],
            "block_size": task.block_size,
            "packing": os.environ.get("PACKING", "concat"),
            "engine": os.environ.get("ENGINE", "auto"),
        }
    )
    timeline, told = Timeline(), list[str]()
    manifest = preprocess(
        data, cache / "bench", workers=task.processes, report=timeline, tell=told.append
    )
    return {
        "tokens": manifest["counts"]["tokens"],
        # of the copies of the tokenizer no rival has any
        "bytes": bytes_of(
            f
            for f in files_under(cache)
            if "tokenizers" not in f.parts and f.parent.name != "tokenizer"
        ),
        "steady_mb_s": timeline.steady_mb_s(),
        "stages": timeline.seconds(),
        "told": told,
    }


if __name__ == "__main__":
    # not at the head: each worker imports this file again, as it would the real, light entry
    importlib.import_module(
        "clusterlm.data.cache" if "--again" in sys.argv else "clusterlm.data.preprocess"
    )
    run(prepare)
