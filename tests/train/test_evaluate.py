"""Sums of a batch: what counts, what does not, and that batches do not matter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clusterlm.data.blocks import IGNORE_INDEX
from clusterlm.train.evaluate import Sums, score_batches, score_logits
from clusterlm.train.trainer import weighted_loss


@pytest.fixture
def logits_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 700, 11, generator=generator)
    labels = torch.randint(0, 11, (3, 700), generator=generator)
    labels[torch.rand(3, 700, generator=generator) < 0.3] = IGNORE_INDEX
    return logits, labels


def test_the_mean_loss_is_that_of_the_trainer(logits_and_labels: Any) -> None:
    logits, labels = logits_and_labels
    sums = score_logits(logits, labels)
    assert sums.mean_loss == pytest.approx(
        float(weighted_loss(logits, labels, torch.ones(3, 700))), rel=1e-6
    )
    assert int(sums.tokens) == int((labels[:, 1:] != IGNORE_INDEX).sum())


def test_weights_are_those_of_the_trainer(logits_and_labels: Any) -> None:
    logits, labels = logits_and_labels
    weights = torch.rand(3, 700)
    expected = float(weighted_loss(logits, labels, weights))
    assert score_logits(logits, labels, weights).mean_loss == pytest.approx(expected, rel=1e-6)


def test_blocks_may_be_put_into_batches_in_any_way(logits_and_labels: Any) -> None:
    logits, labels = logits_and_labels
    whole = score_logits(logits, labels)
    parts = [score_logits(logits[i : i + 1], labels[i : i + 1]) for i in range(3)]
    summed = sum(parts, Sums.zero())
    assert torch.allclose(summed.packed(), whole.packed(), rtol=1e-12)
    assert int(Sums.unpacked(whole.packed()).correct) == int(whole.correct)


def test_a_perfect_guess_is_counted_and_nothing_is_nothing() -> None:
    labels = torch.tensor([[5, 1, 2, IGNORE_INDEX]])
    logits = torch.nn.functional.one_hot(torch.tensor([[1, 2, 0, 0]]), 6).float() * 50
    sums = score_logits(logits, labels)
    assert sums.accuracy == 1.0
    assert sums.perplexity == pytest.approx(1.0)
    nothing = score_logits(logits, torch.full_like(labels, IGNORE_INDEX))
    assert int(nothing.tokens) == 0
    assert nothing.perplexity != nothing.perplexity


def test_documents_of_a_block_do_not_see_each_other(tiny_model: Any) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.config.use_cache = True
    ids = torch.arange(5, 25)[None]
    positions = torch.cat([torch.arange(12), torch.arange(8)])[None]
    labels = ids.clone()
    labels[0, :13] = IGNORE_INDEX
    block = {"input_ids": ids.int(), "position_ids": positions.int(), "labels": labels}
    other = block | {"input_ids": torch.cat([ids[:, :12] + 40, ids[:, 12:]], 1).int()}
    assert score_batches(model, [block]).mean_loss == score_batches(model, [other]).mean_loss
    assert model.config.use_cache is True
