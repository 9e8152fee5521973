"""Where a training goes on, also on another number of ranks.

The order of the blocks is a stream: epoch after epoch, each a permutation (`blocks.BlockOrder`).
transformers finds its place in it by step x blocks per step, so it is right as long as a step takes
as many blocks as before. On fewer ranks each makes more passes a step (`arguments.py`), and then it
does. Where that does not come out even, the stream is moved on by the difference, so that no block
comes twice or never; the steps are then of another size, and that is said.

    batch.json    in each checkpoint: ranks and passes of the steps so far, and how far it was moved
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clusterlm.node.files import read_json

RECORD = "batch.json"


@dataclass(frozen=True)
class Batch:
    """What a step takes.

    Attributes:
        moved: blocks that the stream is ahead of what the steps would say.
    """

    ranks: int
    micro_batch_size: int
    gradient_accumulation: int
    moved: int = 0

    @property
    def blocks_per_step(self) -> int:
        return self.ranks * self.micro_batch_size * self.gradient_accumulation

    @classmethod
    def of(cls, args: Any, ranks: int) -> Batch:
        """Of TrainingArguments."""
        return cls(ranks, args.per_device_train_batch_size, args.gradient_accumulation_steps)

    @classmethod
    def read(cls, checkpoint: Path) -> Batch | None:
        """That of the steps before a checkpoint; None where it was not written down."""
        record = read_json(checkpoint / RECORD)
        names = cls.__dataclass_fields__
        if record is None or not set(names) <= record.keys():
            return None
        return cls(**{name: int(record[name]) for name in names})

    def to_json(self) -> dict[str, int]:
        return asdict(self)

    def blocks_before(self, step: int, num_blocks: int) -> int:
        """Where the stream stands after `step` steps; an epoch's last step may be short.

        With 10 blocks and 4 a step: 4, 8, 10 | 14, 18, 20 | ...
        """
        steps_per_epoch = -(-num_blocks // self.blocks_per_step)
        epochs, rest = divmod(step, steps_per_epoch)
        in_epoch = min(rest * self.blocks_per_step, num_blocks)
        return epochs * num_blocks + in_epoch + self.moved


def go_on(now: Batch, before: Batch | None, *, step: int, num_blocks: int) -> Batch:
    """The batch of this attempt, moved on so that it begins where the checkpoint stands."""
    if before is None:
        return now
    moved = before.blocks_before(step, num_blocks) - now.blocks_before(step, num_blocks)
    return Batch(**(now.to_json() | {"moved": moved}))


def changes(now: Batch, before: Batch | None) -> Iterator[str]:
    """What is another since the checkpoint was made, in words for the log."""
    if before is None:
        return
    if now.ranks != before.ranks:
        yield f"the checkpoint was made by {before.ranks} ranks, now there are {now.ranks}"
    new, old = now.blocks_per_step, before.blocks_per_step
    if new != old:
        yield (
            f"WARNING: a step now takes {new} blocks, before it took {old}: "
            f"{now.ranks} ranks x micro_batch_size {now.micro_batch_size} x {_passes(now)}. The "
            "learning rate was chosen for the other size; the data goes on where it stood"
        )
    elif now.gradient_accumulation != before.gradient_accumulation:
        yield f"a step still takes {new} blocks: each rank makes {_passes(now)} of it"


def _passes(batch: Batch) -> str:
    passes = batch.gradient_accumulation
    return f"{passes} pass" if passes == 1 else f"{passes} passes"
