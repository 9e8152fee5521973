"""An evaluation gives the same on any number of ranks, and what one would count by hand."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from clusterlm.train.evaluate import Sums
from clusterlm.train.evaluation import metrics_of, score_share, share_of
from tests.train.test_trainer import _batch, _blocks, _mean_by_hand, _model, _trainer


@pytest.mark.parametrize("num_blocks", [1, 2, 5, 8, 13])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_block_is_evaluated_once_and_all_ranks_keep_pace(num_blocks: int, ranks: int) -> None:
    shares = [share_of(num_blocks, 2, rank=rank, ranks=ranks) for rank in range(ranks)]
    seen = [b for share in shares for batch in share.batches[: share.num_real] for b in batch]
    assert sorted(seen) == list(range(num_blocks))
    assert len({len(share.batches) for share in shares}) == 1
    assert all(share.batches for share in shares)


def _sums(blocks: Any, model: Any, ranks: int) -> Sums:
    # with a cache of keys attention would cross documents
    model.config.use_cache = False
    total = Sums.zero().packed()
    for rank in range(ranks):
        share = share_of(len(blocks), 2, rank=rank, ranks=ranks)
        total += score_share(
            model,
            [_batch(blocks, batch) for batch in share.batches],
            num_real=share.num_real,
            prepare=dict,
            precision=contextlib.nullcontext,
        )
    return Sums.unpacked(total)


@pytest.mark.parametrize("role_weights", [True, False])
def test_shares_of_ranks_add_up_to_what_one_process_finds(
    tmp_path: Path, role_weights: bool
) -> None:
    blocks = _blocks(tmp_path, role_weights=role_weights)
    model = _model().eval()
    alone = _sums(blocks, model, 1)
    for ranks in (2, 3, 50):
        together = _sums(blocks, model, ranks).packed().tolist()
        assert together == pytest.approx(alone.packed().tolist(), rel=1e-6)
    metrics = metrics_of(alone)
    trainer = _trainer(tmp_path, blocks, model, per_device_eval_batch_size=3)
    found = trainer.evaluate()
    assert found["eval_loss"] == pytest.approx(metrics["loss"], rel=1e-6)
    assert found["eval_perplexity"] == pytest.approx(math.exp(found["eval_loss"]))
    assert found["eval_token_accuracy"] == pytest.approx(metrics["token_accuracy"], rel=1e-6)
    if role_weights:
        whole = _batch(blocks, list(range(len(blocks))))
        assert found["eval_loss"] == pytest.approx(_mean_by_hand(model, whole), rel=1e-5)


def test_the_loss_is_that_of_the_training(tmp_path: Path) -> None:
    blocks = _blocks(tmp_path, role_weights=False)
    model = _model().eval()
    batch = _batch(blocks, list(range(len(blocks))))
    with torch.no_grad():
        by_model = float(model(**batch, use_cache=False).loss)
    assert metrics_of(_sums(blocks, model, 1))["loss"] == pytest.approx(by_model, rel=1e-5)


def test_without_labels_there_is_no_accuracy_and_a_large_loss_has_no_perplexity() -> None:
    one = torch.ones(())
    assert metrics_of(Sums.zero())["token_accuracy"] is None
    assert metrics_of(Sums(one * 1e6, one, one, one))["perplexity"] is None
    assert math.isnan(float(metrics_of(Sums(one * math.nan, one, one, one))["loss"] or 0))
