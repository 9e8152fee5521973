"""`metrics.jsonl`: one line for each logged step, each step once. docs/metrics.md has the fields.

    {"step": 10, "loss": 7.9, "grad_norm": 1.2, "lr": 0.0003, "tokens": 81920,
     "tokens_per_s": 5100.0, ..., "time": 1769000000.0}
    {"step": 50, "eval_loss": 5.8, "perplexity": 330.3, "token_accuracy": 0.12,
     "tokens": 409600, "time": 1769000060.0}

`loss` is the mean over the steps since the line before, on all ranks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clusterlm.node.files import read_jsonl, write_atomically

# what of a log has another name in a line; everything else keeps its own
_RENAMED = {"learning_rate": "lr"}
_FIRST = ("loss", "grad_norm", "lr")


def keep_lines_until(path: Path, step: int) -> list[dict[str, Any]]:
    """Forget what was logged beyond the checkpoint that is resumed; those steps come again.

    Returns:
        The lines that stay.
    """
    rows, _ = read_jsonl(path)
    kept = [row for row in rows if _step_of(row) <= step]
    if len(kept) < len(rows):
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
    return kept


def training_line(
    step: int, logs: dict[str, Any], *, is_spike: bool, time: float
) -> dict[str, Any]:
    """A line for a training step, from what is logged."""
    values = {_RENAMED.get(name, name): value for name, value in logs.items() if name != "epoch"}
    line = {"step": step, **{name: values.pop(name, None) for name in _FIRST}, **values}
    return {**line, **({"spike": True} if is_spike else {}), "time": time}


def evaluation_line(
    step: int, logs: dict[str, Any], *, tokens: int, is_best: bool, time: float
) -> dict[str, Any]:
    """A line for an evaluation."""
    line: dict[str, Any] = {"step": step, "eval_loss": logs["eval_loss"]}
    for name in ("perplexity", "token_accuracy", "tokens"):
        if (value := logs.get(f"eval_{name}")) is not None:
            line["eval_tokens" if name == "tokens" else name] = value
    return {**line, **({"best": True} if is_best else {}), "tokens": tokens, "time": time}


def last_line(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The newest line of a training step."""
    return next((row for row in reversed(rows) if "loss" in row), None)


def numbers(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    """The values of a field, oldest first; what is no number is left out."""
    values = [row.get(name) for row in rows]
    return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]


def _step_of(row: dict[str, Any]) -> float:
    step = row.get("step")
    return step if isinstance(step, int | float) else float("inf")
