"""`metrics.jsonl`: one line for each logged step, each step once.

    {"step": 10, "loss": 7.9, "grad_norm": 1.2, "lr": 0.0003, "tokens": 81920,
     "tokens_per_s": 5100.0, "time": 1769000000.0}
    {"step": 50, "eval_loss": 5.8, "tokens": 409600, "time": 1769000060.0}

`loss` is the mean over the steps since the line before, on all ranks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clusterlm.node.files import read_jsonl, write_atomically


def drop_lines_after(path: Path, step: int) -> None:
    """Forget what was logged beyond the checkpoint that is resumed; those steps come again."""
    rows, _ = read_jsonl(path)
    kept = [row for row in rows if _step_of(row) <= step]
    if len(kept) < len(rows):
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))


def training_line(
    step: int, logs: dict[str, Any], *, tokens: int, tokens_per_s: float, time: float
) -> dict[str, Any]:
    """A line for a training step, from what transformers logs."""
    return {
        "step": step,
        "loss": logs["loss"],
        "grad_norm": logs.get("grad_norm"),
        "lr": logs.get("learning_rate"),
        "tokens": tokens,
        "tokens_per_s": round(tokens_per_s, 1),
        "time": time,
    }


def evaluation_line(step: int, logs: dict[str, Any], *, tokens: int, time: float) -> dict[str, Any]:
    """A line for an evaluation."""
    return {"step": step, "eval_loss": logs["eval_loss"], "tokens": tokens, "time": time}


def _step_of(row: dict[str, Any]) -> float:
    step = row.get("step")
    return step if isinstance(step, int | float) else float("inf")
