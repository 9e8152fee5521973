"""However a step is cut into micro batches, passes and ranks, it is the same step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.forked import Forks
from tests.train.launching import Run

MakeRun = Callable[..., Run]
FOUR = {"max_steps": 5, "save_steps": 100, "eval_on_start": False}
# micro batch x accumulation x ranks
WAYS = [(1, 4, 1), (2, 2, 1), (4, 1, 1), (1, 2, 2)]


def losses_of(make_run: MakeRun, forks: Forks, name: str, **values: Any) -> dict[int, Any]:
    run = make_run(name, **values)
    assert set(run.train_forked(forks)) == {0}, run.output
    return run.losses()


def test_batch_accumulation_and_ranks_give_the_same_losses(make_run: MakeRun, forks: Forks) -> None:
    curves = [
        losses_of(
            make_run,
            forks,
            f"{micro}x{passes}x{ranks}",
            train=FOUR | {"micro_batch_size": micro, "gradient_accumulation": passes},
            ranks=ranks,
        )
        for micro, passes, ranks in WAYS
    ]
    for curve in curves[1:]:
        assert sorted(curve) == [1, 2, 3, 4, 5]
        for step, found in curve.items():
            assert found == pytest.approx(curves[0][step], rel=1e-5), step


def test_fsdp_recomputing_its_activations_is_ddp(
    make_run: MakeRun, forks: Forks, tiny_model: Path
) -> None:
    model, train = {"name": str(tiny_model)}, FOUR | {"max_steps": 3}
    split = {"strategy": "fsdp", "fsdp": {"shard": "gradients", "wrap": ["LlamaDecoderLayer"]}}
    plain = losses_of(make_run, forks, "ddp", model=model, train=train)
    split = train | split | {"activation_checkpointing": True}
    for step, found in losses_of(make_run, forks, "fsdp", model=model, train=split).items():
        assert found == pytest.approx(plain[step], rel=1e-5), step


def test_a_layer_that_is_not_there_is_named(make_run: MakeRun, forks: Forks) -> None:
    run = make_run(train=FOUR | {"strategy": "fsdp", "fsdp": {"wrap": ["LlamaBlock"]}})
    assert set(run.train_forked(forks)) != {0}
    assert "train.fsdp.wrap: the model has no layer of class LlamaBlock" in run.output
    assert "LlamaDecoderLayer" in run.output
