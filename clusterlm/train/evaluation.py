"""An evaluation on all ranks: every block of a split once, and the exact mean over its labels.

Batches are dealt to the ranks in turn. Where they do not come out even, the ranks that have none
left go through the model with labels that do not count: with weights split over the ranks (ZeRO-3,
FSDP) all must enter it equally often. So no block is seen twice, and what comes out is the same
on any number of ranks: sums are added up, never means of batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from clusterlm.data.blocks import IGNORE_INDEX
from clusterlm.train.evaluate import Sums, score_batch


@dataclass(frozen=True)
class Share:
    """The batches of one rank.

    Attributes:
        batches: indices of blocks; equally many batches on every rank.
        num_real: so many of them count; what follows only keeps pace.
    """

    batches: list[list[int]]
    num_real: int


def share_of(num_blocks: int, batch_size: int, *, rank: int, ranks: int) -> Share:
    """What a rank evaluates. Of 5 blocks in batches of 2 on 2 ranks: [0 1] [4] and [2 3] [0]."""
    starts = range(0, num_blocks, batch_size)
    batches = [list(range(at, min(at + batch_size, num_blocks))) for at in starts]
    own = batches[rank::ranks]
    rounds = math.ceil(len(batches) / ranks)
    return Share(own + [[0]] * (rounds - len(own)), len(own))


@torch.no_grad()
def score_share(
    model: Any,
    batches: Iterable[dict[str, Any]],
    *,
    num_real: int,
    prepare: Callable[[dict[str, Any]], dict[str, Any]],
    precision: Callable[[], AbstractContextManager[Any]],
) -> torch.Tensor:
    """The sums of a rank's batches, packed and on the device.

    Args:
        model: in evaluation mode.
        batches: of this rank.
        num_real: the batches behind these do not count.
        prepare: brings a batch to the device.
        precision: the arithmetic of the forward pass.
    """
    total: Sums | None = None
    for number, raw in enumerate(batches):
        batch = prepare(raw)
        if number >= num_real:
            batch["labels"] = torch.full_like(batch["labels"], IGNORE_INDEX)
        with precision():
            sums = score_batch(model, batch)
        total = sums if total is None else total + sums
    assert total is not None, "an evaluation without blocks"
    return total.packed()


def metrics_of(sums: Sums) -> dict[str, float | None]:
    """Loss, perplexity and token accuracy from the sums of all ranks."""
    tokens = int(sums.tokens)
    if not float(sums.weight):
        return {"loss": 0.0, "perplexity": 1.0, "token_accuracy": None, "tokens": tokens}
    perplexity = sums.perplexity
    return {
        # one that is no number goes on as it is: the guard names it
        "loss": sums.mean_loss,
        # what no float can hold is no JSON either
        "perplexity": perplexity if math.isfinite(perplexity) else None,
        "token_accuracy": sums.accuracy,
        "tokens": tokens,
    }
