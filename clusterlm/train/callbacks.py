"""What happens between two steps, beside the training itself.

Their order matters: `LossGuard` looks at a loss before `Recorder` writes it, and `SaveRhythm` asks
for a log line before each save, so that no checkpoint is sealed with a loss nobody looked at.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from clusterlm.errors import TrainError
from clusterlm.node.files import append_json
from clusterlm.train.clock import StartClock
from clusterlm.train.group import Group
from clusterlm.train.metrics import evaluation_line, training_line
from clusterlm.train.pace import Pace
from clusterlm.train.progress import Progress
from clusterlm.train.stop import StopRequest


class NothingLeft(Exception):
    """The checkpoint resumed from is that of the last step: only the model remains to be saved."""


class LossGuard(TrainerCallback):  # type: ignore[misc]
    """Ends the training when loss or gradient is no number; every rank sees the same value."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        for name in ("loss", "grad_norm", "eval_loss"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(value):
                raise TrainError(
                    f"{name} is {value} at step {state.global_step}; lower train.learning_rate, "
                    "lengthen train.warmup, or look at the data of these steps"
                )


class SaveRhythm(TrainerCallback):  # type: ignore[misc]
    """Trains no step beyond the last, logs before each save, saves and evaluates at the end."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # transformers looks at max_steps only after a step and would train one too many
        if state.global_step >= state.max_steps:
            raise NothingLeft

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"
        if control.should_save:
            control.should_log = True


class StopAgreement(TrainerCallback):  # type: ignore[misc]
    """Makes all ranks save and end after the same step when one of them was asked to."""

    def __init__(self, request: StopRequest, group: Group) -> None:
        self.stopped = False
        self._request = request
        self._group = group

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self._group.any(self._request.asked()) or state.global_step >= state.max_steps:
            return
        self.stopped = True
        control.should_training_stop = True
        control.should_save = True
        control.should_log = True


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Tells how it goes: metrics.jsonl, progress.json, lines in the log. Rank 0 only."""

    def __init__(self, metrics: Path, progress: Progress, pace: Pace, clock: StartClock) -> None:
        self._metrics = metrics
        self._progress = progress
        self._pace = pace
        self._clock = clock
        self._first = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._clock.mark("engine")
        self._pace.start(state.global_step)
        self._progress.show(step=state.global_step, total_steps=state.max_steps, text="first step")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._pace.count()
        if self._first:
            self._first = False
            self._clock.mark("first step")
            self._progress.say(self._clock.line())
        self._progress.show(step=state.global_step, text=None)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        step, seen = state.global_step, self._pace.tokens_at(state.global_step)
        if "eval_loss" in logs:
            append_json(self._metrics, evaluation_line(step, logs, tokens=seen, time=time.time()))
            self._progress.say(f"step {step}/{state.max_steps}  eval_loss {logs['eval_loss']:.4f}")
        elif "loss" in logs:
            self._record_step(step, state.max_steps, logs, seen)
        if control.should_save:
            self._progress.show(text=f"saving checkpoint-{step}", now=True)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._pace.resume()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._pace.resume()

    def _record_step(self, step: int, total: int, logs: dict[str, Any], seen: int) -> None:
        tokens_per_s, steps_per_s = self._pace.take(step)
        line = training_line(step, logs, tokens=seen, tokens_per_s=tokens_per_s, time=time.time())
        append_json(self._metrics, line)
        eta_s = round((total - step) / steps_per_s, 1) if steps_per_s else None
        self._progress.show(
            step=step, loss=line["loss"], tokens_per_s=line["tokens_per_s"], eta_s=eta_s, now=True
        )
        self._progress.say(
            f"step {step}/{total}  loss {line['loss']:.4f}  {tokens_per_s:,.0f} tokens/s"
        )
