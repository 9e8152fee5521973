"""What is measured between two log lines, put together over the ranks.

Each rank keeps its own sums; at a log line they are exchanged once, as a few numbers over the group
for flags. Between lines a step costs two clock readings and one count on the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback

from clusterlm.data.blocks import IGNORE_INDEX
from clusterlm.train.device import PowerMeter, peak_memory
from clusterlm.train.efficiency import Efficiency
from clusterlm.train.group import Group
from clusterlm.train.loader_wait import LoaderWait
from clusterlm.train.step_times import StepTimes
from clusterlm.train.token_count import TokenCount

UNKNOWN = math.nan


@dataclass(frozen=True)
class Reading:
    """The numbers of one rank; NaN where one is unknown."""

    seconds: float
    p50: float
    p95: float
    wait_s: float
    supervised: float
    reserved: float
    allocated: float
    power_w: float


@dataclass(frozen=True)
class Totals:
    """Tokens since the first step of the run; None when an older version wrote part of it."""

    unpadded_tokens: int | None = 0
    supervised_tokens: int | None = 0

    @classmethod
    def of_line(cls, line: dict[str, Any] | None) -> Totals:
        """As the last line of `metrics.jsonl` has them; nothing was trained where there is none."""
        if line is None:
            return cls()
        return cls(line.get("unpadded_tokens"), line.get("supervised_tokens"))

    def plus(self, unpadded: int, supervised: float) -> Totals:
        """With those of further steps."""
        return Totals(
            None if self.unpadded_tokens is None else self.unpadded_tokens + unpadded,
            None if self.supervised_tokens is None else self.supervised_tokens + round(supervised),
        )


class Meter(TrainerCallback):  # type: ignore[misc]
    """Measures on every rank; `take` tells what all of them have measured together."""

    def __init__(
        self, group: Group, tokens: TokenCount, efficiency: Efficiency, *, on_gpu: bool
    ) -> None:
        self.tokens = tokens
        self._group = group
        self._efficiency = efficiency
        self._on_gpu = on_gpu
        self._times = StepTimes(on_gpu=on_gpu)
        self._loader = LoaderWait(on_gpu=on_gpu)
        self._power = PowerMeter.of_gpu(on_gpu=on_gpu)
        self._supervised: Any = 0
        self._since = 0
        self._totals = Totals()

    def go_on_from(self, totals: Totals) -> None:
        """Count on from what earlier attempts have trained on."""
        self._totals = totals

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._since = state.global_step
        self._times.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._times.count()

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._times.resume()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._times.resume()

    def watch(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same micro batches; their loss-bearing tokens and the wait for them are counted."""
        for batch in self._loader.over(batches):
            # on the device of the batch, so that nothing waits for it
            self._supervised = self._supervised + num_supervised(batch)
            yield batch

    def take(self, step: int) -> dict[str, Any]:
        """The figures since the last call, the same on every rank; all ranks must call it."""
        since, self._since = self._since, step
        spent = self._times.take()
        supervised, self._supervised = float(self._supervised), 0
        own = Reading(
            seconds=spent.seconds,
            p50=spent.p50,
            p95=spent.p95,
            wait_s=self._loader.take(),
            supervised=supervised,
            **self._device(),
        )
        rows = self._group.gather_numbers(list(vars(own).values()))
        readings = [Reading(*row) for row in rows]
        unpadded = self.tokens.unpadded_between(since, step)
        self._totals = self._totals.plus(unpadded, sum(reading.supervised for reading in readings))
        found = figures(
            readings,
            num_steps=step - since,
            tokens=self.tokens.tokens_at(step) - self.tokens.tokens_at(since),
            unpadded=unpadded,
            efficiency=self._efficiency,
        )
        return {"tokens": self.tokens.tokens_at(step), **vars(self._totals), **found}

    def _device(self) -> dict[str, float]:
        reserved, allocated = peak_memory(on_gpu=self._on_gpu)
        power_w = self._power.take()
        return {
            "reserved": float(reserved),
            "allocated": UNKNOWN if allocated is None else float(allocated),
            "power_w": UNKNOWN if power_w is None else power_w,
        }


def num_supervised(batch: dict[str, Any]) -> Any:
    """Labels of a micro batch that count in the loss; the first of a block has no prediction."""
    if "labels" not in batch:
        return 0
    counts = batch["labels"][:, 1:].ne(IGNORE_INDEX)
    if "loss_weights" in batch:
        counts = counts & batch["loss_weights"][:, 1:].gt(0)
    # a step of a large cluster has more than an int32 holds
    return counts.sum(dtype=torch.int64)


def figures(
    readings: Sequence[Reading],
    *,
    num_steps: int,
    tokens: int,
    unpadded: int,
    efficiency: Efficiency,
) -> dict[str, Any]:
    """The fields of a line of `metrics.jsonl` from what each rank has measured. Pure.

    Args:
        readings: by rank; the slowest counts, since the others wait for it.
        num_steps: since the line before.
        tokens: of all ranks.
        unpadded: those that are not padding.
        efficiency: for MFU and HFU.
    """
    seconds = max(reading.seconds for reading in readings)
    supervised = sum(reading.supervised for reading in readings)
    ranks = len(readings)
    wait = max(reading.wait_s / reading.seconds for reading in readings)
    return {
        "steps_per_s": round(num_steps / seconds, 6),
        "tokens_per_s": round(tokens / seconds, 1),
        "tokens_per_s_per_gpu": round(tokens / seconds / ranks, 1),
        "supervised_tokens_per_s": round(supervised / seconds, 1),
        "step_time_p50": round(max(reading.p50 for reading in readings), 5),
        "step_time_p95": round(max(reading.p95 for reading in readings), 5),
        "data_wait": round(min(wait, 1.0), 4),
        "mfu": _rounded(efficiency.mfu(unpadded / seconds / ranks), 4),
        "hfu": _rounded(efficiency.hfu(tokens / seconds / ranks), 4),
        "peak_memory": int(max(reading.reserved for reading in readings)),
        "peak_allocated": _largest([reading.allocated for reading in readings]),
        "power_w": _mean([reading.power_w for reading in readings]),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _largest(values: Sequence[float]) -> int | None:
    known = [value for value in values if not math.isnan(value)]
    return int(max(known)) if known else None


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return round(sum(known) / len(known), 1) if known else None
