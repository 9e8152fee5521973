"""Those who watch a training without taking part: the guard, the meter, the one who writes it down.

Put together here, so that the session stays a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments

from clusterlm.spec.job import Job
from clusterlm.train.blocks import BlockDataset
from clusterlm.train.callbacks import LossGuard
from clusterlm.train.device import device_name
from clusterlm.train.efficiency import Efficiency, efficiency_of
from clusterlm.train.group import Group
from clusterlm.train.meter import Meter, Totals
from clusterlm.train.metrics import keep_lines_until, last_line
from clusterlm.train.recorder import Recorder
from clusterlm.train.token_count import TokenCount

BLOCKS_NAMED = 8
WORDS_SHOWN = 60


@dataclass(frozen=True)
class Watchers:
    """Of one rank."""

    guard: LossGuard
    meter: Meter
    recorder: Recorder | None
    """Only rank 0 writes."""

    def callbacks(self) -> list[TrainerCallback]:
        """Behind each other: the guard first, so that nothing is written of a loss that is none."""
        return [self.guard, self.meter, *([self.recorder] if self.recorder else [])]

    def go_on_after(self, step: int, metrics: Path) -> None:
        """Forget what was logged beyond `step`, and count on from there; -1: begin anew."""
        if self.recorder is None:
            return
        lines = keep_lines_until(metrics, step)
        self.recorder.go_on_from(lines)
        self.meter.go_on_from(Totals.of_line(last_line(lines)))


def make_watchers(
    job: Job,
    group: Group,
    args: TrainingArguments,
    train: BlockDataset,
    *,
    model: Any,
    tokenizer: Any,
    has_padding: bool,
    recorder: Recorder | None,
) -> Watchers:
    """Everyone who watches this rank."""
    on_gpu = args.device.type == "cuda"
    per_pass = args.per_device_train_batch_size * args.gradient_accumulation_steps
    tokens = TokenCount(
        train.blocks,
        seed=job.train.seed,
        blocks_per_step=per_pass * group.size,
        has_padding=has_padding,
        moved=train.order.moved,
    )
    meter = Meter(group, tokens, _efficiency(job, train, model, on_gpu=on_gpu), on_gpu=on_gpu)

    def blocks_told(first: int, last: int) -> str:
        return told_blocks(tokens, train, tokenizer, first, last)

    return Watchers(LossGuard(blocks_told), meter, recorder)


def told_blocks(
    tokens: TokenCount, train: BlockDataset, tokenizer: Any, first: int, last: int
) -> str:
    """`blocks 17, 305, ... of steps 11 to 20; block 17 begins: "..."`."""
    numbers = [block for step in range(first, last + 1) for block in tokens.blocks_of(step)]
    named = ", ".join(str(number) for number in numbers[:BLOCKS_NAMED])
    more = f" and {len(numbers) - BLOCKS_NAMED} more" if len(numbers) > BLOCKS_NAMED else ""
    steps = f"step {first}" if first == last else f"steps {first} to {last}"
    text = tokenizer.decode(train[numbers[0]]["input_ids"][:WORDS_SHOWN].tolist())
    begin = " ".join(text.split())[:WORDS_SHOWN]
    return f'blocks {named}{more} of {steps}; block {numbers[0]} begins: "{begin}"'


def _efficiency(job: Job, train: BlockDataset, model: Any, *, on_gpu: bool) -> Efficiency:
    return efficiency_of(
        model.config.to_dict(),
        job.train,
        block_size=train.blocks.block_size,
        mean_document=train.blocks.mean_piece(),
        device=device_name(on_gpu=on_gpu),
        trained_share=trained_share(model),
    )


def trained_share(model: Any) -> float:
    """Share of the weights that is trained; whole ones, also where a rank holds a part (ZeRO-3)."""
    sizes = [(int(getattr(p, "ds_numel", p.numel())), p.requires_grad) for p in model.parameters()]
    trained = sum(size for size, is_trained in sizes if is_trained)
    return trained / max(1, sum(size for size, _ in sizes))
