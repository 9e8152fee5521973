"""What a run has come to, read from its metrics: how the loss fell, tokens, time, attempts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from clusterlm.node.files import read_json, read_jsonl
from clusterlm.paths import CachePaths, RunPaths
from clusterlm.spec.units import spoken

WORTH_TELLING = 0.02
"""Share of tokens that are in no block."""

LARGEST_EXPONENT = 700.0
"""exp of more is beyond a float."""
FEW_LINES = 4
"""Fewer lines of the loss make no trend."""
FEW_TOKENS = 1000
"""The loss of so few tokens held back is chance."""
ENDS = 5
"""The loss of one logged step is noisy: start and end are means of up to so many lines."""


@dataclass(frozen=True)
class Outcome:
    """The report of a run. None where the run has logged nothing."""

    first_loss: float | None
    last_loss: float | None
    eval_loss: float | None
    """Of the last evaluation."""
    best: tuple[int, float] | None
    """Step and loss of the lowest evaluation."""
    spikes: int
    """Lines whose loss was a spike."""
    steps: int | None
    tokens: int | None
    seconds: float | None
    """From the start of the run to its end, or to its newest event."""
    attempts: int
    """Of the training."""
    loss_lines: int | None = None
    """Logged losses; None: not counted."""
    eval_tokens: int | None = None
    """Predicted in the last evaluation."""
    data: str | None = None
    """What the prepared data holds and has lost."""

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"data      {self.data}"] if self.data else []
        if self.first_loss is not None and self.last_loss is not None:
            lines.append(f"mean loss {_fall(self.first_loss, self.last_loss, self.loss_lines)}")
        if self.eval_loss is not None:
            lines.append(f"eval loss {_evaluated(self.eval_loss, self.best)}{self._few()}")
        if self.spikes:
            lines.append(f'spikes    {self.spikes} in the loss; "spike" in metrics.jsonl')
        done = []
        if self.steps is not None:
            done.append(f"{self.steps} steps")
        if self.tokens is not None:
            done.append(f"{self.tokens:,} tokens")
        if self.seconds is not None:
            done.append(spoken(self.seconds))
        if self.attempts > 1:
            done.append(f"{self.attempts} attempts")
        if done:
            lines.append(f"trained   {', '.join(done)}")
        return lines

    def _few(self) -> str:
        if self.eval_tokens is None or self.eval_tokens >= FEW_TOKENS:
            return ""
        what = "of one token" if self.eval_tokens == 1 else f"of {self.eval_tokens} tokens"
        return f"; {what} only, which says little: hold back more (data.validation)"


def _evaluated(last: float, best: tuple[int, float] | None) -> str:
    perplexity = f" (perplexity {math.exp(last):.4g})" if last < LARGEST_EXPONENT else ""
    lowest = f", lowest {best[1]:.3f} at step {best[0]}" if best and best[1] < last else ""
    return f"{last:.3f}{perplexity}{lowest}"


def _fall(first: float, last: float, num_lines: int | None) -> str:
    if num_lines is not None and num_lines < FEW_LINES:
        lines = "1 line" if num_lines == 1 else f"{num_lines} lines"
        return f"{first:.3f} at the start, {last:.3f} at the end ({lines} only: no trend)"
    change = f"{(last - first) / first:+.0%}" if first else ""
    return f"{first:.3f} at the start, {last:.3f} at the end ({change})"


def read_outcome(run: RunPaths) -> Outcome:
    """Read what the run has logged so far."""
    rows, _ = read_jsonl(run.metrics)
    losses = _numbers(rows, "loss")
    ends = max(1, min(ENDS, len(losses) // 4))
    steps, tokens = _numbers(rows, "step"), _numbers(rows, "tokens")
    eval_losses = _numbers(rows, "eval_loss")
    return Outcome(
        first_loss=_mean(losses[:ends]),
        last_loss=_mean(losses[-ends:]),
        loss_lines=len(losses),
        eval_loss=eval_losses[-1] if eval_losses else None,
        eval_tokens=_eval_tokens(rows),
        best=_best(rows),
        spikes=sum(row.get("spike") is True for row in rows),
        steps=int(max(steps)) if steps else None,
        tokens=int(max(tokens)) if tokens else None,
        seconds=_seconds(run),
        attempts=len(run.attempt_numbers("train")),
        data=_data_told(run),
    )


def _data_told(run: RunPaths) -> str | None:
    """`43 of 49 records kept, 14 blocks; 52.7% of the tokens in none`."""
    fingerprint = (read_json(run.lock) or {}).get("fingerprint")
    about = read_json(CachePaths.of(fingerprint).manifest) if fingerprint else None
    try:
        counts, train = (about or {})["counts"], (about or {})["splits"]["train"]
        lost = sum(train["lost"].values())
        told = f"{counts['kept']:,} of {counts['documents']:,} records kept"
        told += f", {train['blocks']:,} blocks"
        if lost > WORTH_TELLING * (lost + train["tokens"]):
            told += f"; {lost / (lost + train['tokens']):.1%} of the tokens are in none"
        empty = [row["place"] for row in (about or {})["sources"] if not row["kept"]]
        told += f"; nothing of {', '.join(empty)}" if empty else ""
    # of an older version, or half gone: not worth a word
    except (KeyError, TypeError, AttributeError):
        return None
    return told


def _numbers(rows: list[dict[str, Any]], name: str) -> list[float]:
    # a loss that is no longer a number is written as NaN
    values = [row.get(name) for row in rows]
    return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]


def _eval_tokens(rows: list[dict[str, Any]]) -> int | None:
    found = _numbers([row for row in rows if "eval_loss" in row], "eval_tokens")
    return int(found[-1]) if found else None


def _best(rows: list[dict[str, Any]]) -> tuple[int, float] | None:
    found = [row for row in rows if _numbers([row], "eval_loss") and _numbers([row], "step")]
    lowest = min(found, key=lambda row: float(row["eval_loss"]), default=None)
    return (int(lowest["step"]), float(lowest["eval_loss"])) if lowest else None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _seconds(run: RunPaths) -> float | None:
    """Time of the training: neither the data, nor the queue, nor the pause before a resume."""
    spent, last = 0.0, 0.0
    since: float | None = None
    for event in read_jsonl(run.events)[0]:
        kind, time = event.get("event"), event.get("time")
        if not isinstance(time, int | float) or event.get("phase", "train") != "train":
            continue
        if kind in ("phase_started", "attempt_started"):
            since = time if since is None else since
        elif kind in ("phase_done", "ended", "requeued") and since is not None:
            spent, since = spent + time - since, None
        elif kind in ("submitted", "resumed") and since is not None:
            # killed without a word: what was seen last counts
            spent, since = spent + last - since, None
        last = time
    spent += last - since if since is not None else 0.0
    return spent if spent > 0 else None
