"""How well a model predicts the tokens that are trained: mean loss, perplexity, token accuracy.

One batch at a time, summed: sums of two batches, or of two ranks, are added. Only labels that are
not ignored count, each with its weight where sources have role weights; so the mean is over tokens,
and does not depend on how blocks were put into batches. The trainer and `clusterlm eval` share it.
"""

# B = blocks, T = tokens of a block, V = vocabulary, N = labels that count

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from clusterlm.data.blocks import IGNORE_INDEX
from clusterlm.train.blocks import widen_ids

ROWS_AT_ONCE = 1024
"""Logits taken to float32 at a time: with 150,000 entries that is 0.6 GB."""


@dataclass(frozen=True)
class Sums:
    """Of the labels that count; tensors without dimensions, on the device of the model.

    Attributes:
        loss: sum of the losses, each times its weight (float64).
        correct: labels that had the largest logit (int64).
        tokens: labels (int64).
        weight: sum of the weights of the labels (float64); their number where none has one.
    """

    loss: torch.Tensor
    correct: torch.Tensor
    tokens: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def zero(cls, device: torch.device | str = "cpu") -> Sums:
        """Of no label."""
        return cls.unpacked(torch.zeros(4, dtype=torch.float64, device=device))

    @classmethod
    def unpacked(cls, packed: torch.Tensor) -> Sums:
        """The reverse of `packed`."""
        loss, correct, tokens, weight = packed.unbind()
        return cls(loss, correct.long(), tokens.long(), weight)

    def packed(self) -> torch.Tensor:
        """All four in one float64 tensor: summed over ranks in one all-reduce."""
        return torch.stack([value.double() for value in self._values()])

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(a + b for a, b in zip(self._values(), other._values(), strict=True)))

    @property
    def mean_loss(self) -> float:
        """NaN where nothing counts."""
        weight = float(self.weight)
        return float(self.loss) / weight if weight else math.nan

    @property
    def perplexity(self) -> float:
        """Exp of the mean loss; infinite where that is too large for a float."""
        try:
            return math.exp(self.mean_loss)
        except OverflowError:
            return math.inf

    @property
    def accuracy(self) -> float:
        """Share of the labels that were the model's first choice; NaN where there are none."""
        tokens = int(self.tokens)
        return int(self.correct) / tokens if tokens else math.nan

    def _values(self) -> tuple[torch.Tensor, ...]:
        return self.loss, self.correct, self.tokens, self.weight


@torch.no_grad()
def score_batch(model: Any, batch: Mapping[str, torch.Tensor]) -> Sums:
    """Let the model predict a batch of blocks.

    Documents are kept apart as in training: by positions that start anew, which needs a model that
    keeps no keys (`keeps_no_keys`) and is in evaluation mode.

    Args:
        model: called with all of the batch but labels and weights; gives `.logits`.
        batch: of `collate_blocks`, on the device of the model.
    """
    inputs = widen_ids(dict(batch))
    labels_BT, weights_BT = inputs.pop("labels"), inputs.pop("loss_weights", None)
    outputs = model(**inputs)
    logits_BTV = outputs["logits"] if isinstance(outputs, Mapping) else outputs.logits
    return score_logits(logits_BTV, labels_BT, weights_BT)


def score_logits(
    logits_BTV: torch.Tensor, labels_BT: torch.Tensor, weights_BT: torch.Tensor | None = None
) -> Sums:
    """Sums of logits that are there already; those at a token predict the next."""
    counts_BT = labels_BT[:, 1:] != IGNORE_INDEX
    labels_N = labels_BT[:, 1:][counts_BT]
    weights_N = None if weights_BT is None else weights_BT[:, 1:][counts_BT].double()
    places_N = counts_BT.flatten().nonzero().squeeze(1)
    rows_V = logits_BTV[:, :-1].flatten(0, 1)
    sums = Sums.zero(logits_BTV.device)
    for start in range(0, len(labels_N), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        weights = None if weights_N is None else weights_N[part]
        sums = sums + _score_rows(rows_V[places_N[part]], labels_N[part], weights)
    return sums


@contextmanager
def keeps_no_keys(model: Any) -> Iterator[Any]:
    """The model in evaluation mode and without a cache of keys: with one, documents would mix."""
    config: Any = getattr(model, "config", None)
    was_training = model.training
    kept = getattr(config, "use_cache", None)
    if kept is not None:
        config.use_cache = False
    model.eval()
    try:
        yield model
    finally:
        model.train(was_training)
        if kept is not None:
            config.use_cache = kept


def score_batches(model: Any, batches: Iterable[Mapping[str, torch.Tensor]]) -> Sums:
    """Sums of all batches, moved to the device of the model."""
    device = next(model.parameters()).device
    sums = Sums.zero(device)
    with keeps_no_keys(model):
        for batch in batches:
            moved = {name: tensor.to(device) for name, tensor in batch.items()}
            sums = sums + score_batch(model, moved)
    return sums


def _score_rows(
    logits_NV: torch.Tensor, labels_N: torch.Tensor, weights_N: torch.Tensor | None
) -> Sums:
    losses_N = cross_entropy(logits_NV.float(), labels_N, reduction="none").double()
    correct = (logits_NV.argmax(-1) == labels_N).sum()
    tokens = torch.tensor(len(labels_N), device=labels_N.device)
    if weights_N is None:
        return Sums(losses_N.sum(), correct, tokens, tokens.double())
    return Sums((losses_N * weights_N).sum(), correct, tokens, weights_N.sum())
