"""clusterlm's data phase as a job runs it: `preprocess` on a fresh cache folder.

With `--again` the cache is there and only opened, as each rank of a training run does.
"""

from __future__ import annotations

import time

_BEGAN = time.perf_counter()

import os  # noqa: E402
import re  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from clusterlm.data.cache import open_cache  # noqa: E402

from benchmarks.rivals.common import Task, files_under, run  # noqa: E402


class Timeline:
    """When each stage of the phase was first told of, and the first and last bytes done."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self.bytes_at: list[tuple[float, int]] = []

    def __call__(self, progress: Any) -> None:
        now = time.perf_counter()
        stage = re.sub(r"[\d.,]+.*", "", progress.text).strip()
        self.stages.setdefault(stage, now - _BEGAN)
        if progress.total and progress.done:
            self.bytes_at.append((now, progress.done))

    @property
    def steady_mb_s(self) -> float | None:
        """Source bytes a second between the first and the last that were told of."""
        if len(self.bytes_at) < 2 or self.bytes_at[-1][1] == self.bytes_at[0][1]:
            return None
        (start, before), (end, after) = self.bytes_at[0], self.bytes_at[-1]
        return (after - before) / 1e6 / (end - start)


def prepare(task: Task) -> dict[str, Any]:
    """Prepare a text source, or open what was prepared."""
    cache = Path(os.environ["CLUSTERLM_CACHE_DIR"])
    if task.again:
        blocks = open_cache(cache / "bench").split("train")
        return {"first": len(blocks.batch(range(8))["input_ids"])}
    from clusterlm.data.preprocess import preprocess
    from clusterlm.spec.data import Data

    source = {"kind": "text", "path": str(task.corpus)}
    data = Data.model_validate(
        {
            "tokenizer": {"name": str(task.tokenizer)},
            "sources": [source],
            "block_size": task.block_size,
            "engine": os.environ.get("ENGINE", "auto"),
        }
    )
    timeline = Timeline()
    manifest = preprocess(data, cache / "bench", workers=task.processes, report=timeline)
    return {
        "tokens": manifest["num_tokens"],
        "bytes": sum(file.stat().st_size for file in set(files_under(cache))),
        "steady_mb_s": timeline.steady_mb_s,
        "stages": timeline.stages,
        "engine": manifest.get("engine"),
    }


if __name__ == "__main__":
    run(prepare)
