"""What a run has come to, read from its metrics: how the loss fell, tokens, time, attempts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from clusterlm.node.files import read_jsonl
from clusterlm.paths import RunPaths
from clusterlm.spec.units import spoken

ENDS = 5
"""The loss of one logged step is noisy: start and end are means of up to so many lines."""


@dataclass(frozen=True)
class Outcome:
    """The report of a run. None where the run has logged nothing."""

    first_loss: float | None
    last_loss: float | None
    eval_loss: float | None
    steps: int | None
    tokens: int | None
    seconds: float | None
    """From the start of the run to its end, or to its newest event."""
    attempts: int
    """Of the training."""

    def lines(self) -> list[str]:
        """For people."""
        lines = []
        if self.first_loss is not None and self.last_loss is not None:
            lines.append(f"mean loss {_fall(self.first_loss, self.last_loss)}")
        if self.eval_loss is not None:
            lines.append(f"eval loss {self.eval_loss:.3f}")
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


def _fall(first: float, last: float) -> str:
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
        eval_loss=eval_losses[-1] if eval_losses else None,
        steps=int(max(steps)) if steps else None,
        tokens=int(max(tokens)) if tokens else None,
        seconds=_seconds(run),
        attempts=len(run.attempt_numbers("train")),
    )


def _numbers(rows: list[dict[str, Any]], name: str) -> list[float]:
    # a loss that is no longer a number is written as NaN
    values = [row.get(name) for row in rows]
    return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _seconds(run: RunPaths) -> float | None:
    """Time in phases that ran: neither the queue nor the pause before a resume is in it."""
    spent, last = 0.0, 0.0
    since: float | None = None
    # on one machine a phase may begin before the one before it has ended
    under_way: set[str] = set()
    for event in read_jsonl(run.events)[0]:
        kind, time, phase = event.get("event"), event.get("time"), str(event.get("phase"))
        if not isinstance(time, int | float):
            continue
        if kind in ("phase_started", "attempt_started"):
            since = time if since is None else since
            under_way.add(phase)
        elif kind in ("phase_done", "ended", "requeued") and since is not None:
            under_way = under_way - {phase} if kind == "phase_done" else set()
            if not under_way:
                spent, since = spent + time - since, None
        elif kind in ("submitted", "resumed") and since is not None:
            # killed without a word: what was seen last counts
            spent, since, under_way = spent + last - since, None, set()
        last = time
    spent += last - since if since is not None else 0.0
    return spent if spent > 0 else None
