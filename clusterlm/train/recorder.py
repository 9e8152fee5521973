"""Tells how it goes: `metrics.jsonl`, `progress.json`, lines in the log. Rank 0 only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from clusterlm.node.files import append_json
from clusterlm.node.progress import HIGH_WAIT
from clusterlm.train.clock import StartClock
from clusterlm.train.metrics import evaluation_line, numbers, training_line
from clusterlm.train.progress import Progress
from clusterlm.train.spikes import Spikes


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Writes what was measured where others look for it."""

    def __init__(self, metrics: Path, progress: Progress, clock: StartClock) -> None:
        self._metrics = metrics
        self._progress = progress
        self._clock = clock
        self._first = True
        self._evaluated = 0
        self.go_on_from([])

    def go_on_from(self, lines: Sequence[dict[str, Any]]) -> None:
        """Take what earlier attempts have logged into account."""
        self._spikes = Spikes(numbers(lines, "loss"))
        self._lowest = min(numbers(lines, "eval_loss"), default=None)
        self._tokens = int(max(numbers(lines, "tokens"), default=0))

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._clock.mark("engine")
        text = "evaluating the model as it is" if args.eval_on_start else "first step"
        self._progress.show(step=state.global_step, total_steps=state.max_steps, text=text)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._first:
            self._first = False
            self._clock.mark("first step")
            self._progress.say(self._clock.line())
        text = "evaluating" if control.should_evaluate else None
        self._progress.show(step=state.global_step, text=text)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "eval_loss" in logs:
            self._record_evaluation(state.global_step, state.max_steps, logs)
        elif "loss" in logs:
            self._record_step(state.global_step, state.max_steps, logs)
        if control.should_save:
            self._progress.show(text=f"saving checkpoint-{state.global_step}", now=True)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._evaluated += 1
        self._progress.show(evaluated=self._evaluated, text=f"evaluating, batch {self._evaluated}")

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._evaluated = 0
        if self._first:
            self._clock.mark("evaluation")

    def _record_step(self, step: int, total: int, logs: dict[str, Any]) -> None:
        usual = self._spikes.usual()
        is_spike = self._spikes.is_one(logs["loss"])
        line = training_line(step, logs, is_spike=is_spike, time=time.time())
        append_json(self._metrics, line)
        self._tokens = line.get("tokens") or self._tokens
        steps_per_s = line.get("steps_per_s")
        self._progress.show(
            step=step,
            loss=line["loss"],
            tokens_per_s=line.get("tokens_per_s"),
            tokens_per_s_per_gpu=line.get("tokens_per_s_per_gpu"),
            mfu=line.get("mfu"),
            data_wait=line.get("data_wait"),
            eta_s=round((total - step) / steps_per_s, 1) if steps_per_s else None,
            now=True,
        )
        self._progress.say(f"step {step}/{total}  {step_words(line)}")
        if is_spike:
            self._progress.say(f"loss spike at step {step}: {line['loss']:.4f}, usual {usual:.4f}")

    def _record_evaluation(self, step: int, total: int, logs: dict[str, Any]) -> None:
        loss = logs["eval_loss"]
        is_best = self._lowest is None or loss < self._lowest
        self._lowest = loss if is_best else self._lowest
        line = evaluation_line(step, logs, tokens=self._tokens, is_best=is_best, time=time.time())
        append_json(self._metrics, line)
        perplexity = line.get("perplexity")
        self._progress.show(
            eval_loss=loss, perplexity=perplexity, evaluated=None, text=None, now=True
        )
        self._progress.say(f"step {step}/{total}  {evaluation_words(line)}")


def step_words(line: dict[str, Any]) -> str:
    """A training line in words."""
    words = [f"loss {line['loss']:.4f}", f"{line.get('tokens_per_s') or 0:,.0f} tokens/s"]
    if line.get("mfu") is not None:
        words.append(f"MFU {line['mfu']:.1%}")
    if (line.get("data_wait") or 0) > HIGH_WAIT:
        words.append(f"{line['data_wait']:.0%} of the time waiting for data")
    return "  ".join(words)


def evaluation_words(line: dict[str, Any]) -> str:
    """An evaluation line in words."""
    words = [f"eval_loss {line['eval_loss']:.4f}"]
    if line.get("perplexity") is not None:
        words.append(f"perplexity {line['perplexity']:.4g}")
    if line.get("token_accuracy") is not None:
        words.append(f"token accuracy {line['token_accuracy']:.1%}")
    return "  ".join([*words, *(["lowest so far"] if line.get("best") else [])])
