"""What happens between two steps, beside the training itself.

Their order matters: `LossGuard` looks at a loss before `Recorder` writes it, and `SaveRhythm` asks
for a log line before each save, so that no checkpoint is sealed with a loss nobody looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from clusterlm.errors import TrainError
from clusterlm.train.group import Group
from clusterlm.train.stop import StopRequest


class NothingLeft(Exception):
    """The checkpoint resumed from is that of the last step: only the model remains to be saved."""


class LossGuard(TrainerCallback):  # type: ignore[misc]
    """Ends the training when loss or gradient is no number; every rank sees the same value."""

    def __init__(self, blocks_told: Callable[[int, int], str] | None = None) -> None:
        """`blocks_told` names the blocks of the steps from a first to a last one."""
        self._blocks_told = blocks_told
        self._good_until = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._good_until = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        for name in ("loss", "grad_norm", "eval_loss"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(value):
                raise TrainError(
                    f"{name} is {value} at step {state.global_step}; lower train.learning_rate, "
                    "lengthen train.warmup, or look at the data of these steps"
                    f"{self._where(state.global_step)}"
                )
        self._good_until = state.global_step

    def _where(self, step: int) -> str:
        if self._blocks_told is None or step <= self._good_until:
            return ""
        return f": {self._blocks_told(self._good_until + 1, step)}"


class SaveRhythm(TrainerCallback):  # type: ignore[misc]
    """Trains no step beyond the last, logs before each save, saves and evaluates at the end."""

    def __init__(self, *, saves: bool = True) -> None:
        """`saves` is false where only the speed is wanted."""
        self._saves = saves

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # transformers looks at max_steps only after a step and would train one too many
        if state.global_step >= state.max_steps:
            raise NothingLeft

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"
        control.should_save = control.should_save and self._saves
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
