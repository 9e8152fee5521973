"""Resumed on another number of ranks: the same steps on the same blocks, so the same losses.

The sums of a step are made in another order, so they are the same within rounding, in fp32 on the
CPU within 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clusterlm.node.seal import verify
from tests.train.forked import Forks
from tests.train.launching import Run
from tests.train.test_resume_matrix import LORA, STRATEGIES, WHOLE

MakeRun = Callable[..., Run]
# six blocks a step by any of 1, 2, 3 ranks
SHORT = {"max_steps": 4, "save_steps": 2, "global_batch_size": 6, "eval_on_start": False}


FEW = [
    *(("ddp", "full", 2, 3), ("zero1", "full", 2, 1), ("zero3", "lora", 2, 3)),
    ("fsdp", "full", 2, 3),
]
MORE = [
    *(("ddp", "lora", 2, 1), ("zero2", "full", 1, 2), ("zero3", "full", 2, 3)),
    *(("zero3", "full", 2, 1), ("zero1", "lora", 2, 1), ("fsdp", "lora", 3, 2)),
]


@pytest.mark.parametrize(("strategy", "mode", "before", "after"), [*FEW, *MORE] if WHOLE else FEW)
def test_it_goes_on_as_if_nothing_had_happened(
    make_run: MakeRun,
    forks: Forks,
    tiny_model: Path,
    strategy: str,
    mode: str,
    before: int,
    after: int,
) -> None:
    train = SHORT | STRATEGIES[strategy]
    model = {"name": str(tiny_model)}
    if mode == "lora":
        model, train = model | {"adapter": LORA | {"dropout": 0.0}}, train | {"mode": "adapter"}
    run = make_run(model=model, train=train, ranks=before)
    assert set(run.train_forked(forks)) == {0}, run.output
    straight, seen = run.losses(), run.seen()

    run.ranks = after
    resume = str(run.checkpoint(2))
    assert set(run.train_forked(forks, attempt=2, resume=resume)) == {0}, run.output
    losses = run.losses()
    assert sorted(losses) == [1, 2, 3, 4]
    for step in losses:
        assert losses[step] == pytest.approx(straight[step], rel=1e-5), step
    assert run.seen() == {step: seen[step] for step in (3, 4)}
    assert f"made by {before}" in run.output
    assert "a step still takes 6 blocks" in run.output
    # a new checkpoint is there, so what was cut anew for these ranks is gone
    assert verify(run.checkpoint(4)) is None
    assert not list((run.root / "checkpoints").glob("*universal*"))
