"""Killed in the middle of a step and resumed: as if nothing had happened, bit for bit.

Each cell trains three times, on two real ranks, in fp32 on the CPU:

    straight   steps 1 .. 6
    killed     steps 1 .. 4, kill -9 of all ranks in step 5, between two of its micro batches
    resumed    from the checkpoint of step 3: steps 4 .. 6

Loss and gradient norm of every step and every number of the model at the end are those of the
straight run; each step sees the same blocks. Dropout is on wherever the mode has one, and there is
a schedule with a warm-up. `make test` runs a Latin square of the cells; `make matrix` all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.train.forked import Forks
from tests.train.launching import TINY, Run

MakeRun = Callable[..., Run]

WHOLE = os.environ.get("CLUSTERLM_WHOLE_MATRIX") == "1"
STEPS, SAVED = 6, 3
SHORT = {
    "max_steps": STEPS,
    "save_steps": SAVED,
    "gradient_accumulation": 2,
    "warmup": 2,
    "eval_on_start": False,
}
LORA = {"r": 4, "dropout": 0.2, "target_modules": ["q_proj", "down_proj"]}
NEW = {"from_scratch": TINY | {"config": TINY["config"] | {"attention_dropout": 0.2}}}
MODES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": ({}, {}),
    "lora": ({"adapter": LORA}, {"mode": "adapter"}),
    "dora": ({"adapter": LORA | {"method": "dora"}}, {"mode": "adapter"}),
    "embeddings": ({}, {"mode": "embeddings"}),
}
STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "zero1": {"strategy": "deepspeed", "deepspeed": {"stage": 1}},
    "zero2": {"strategy": "deepspeed", "deepspeed": {"stage": 2}},
    "zero3": {"strategy": "deepspeed", "deepspeed": {"stage": 3}},
    "fsdp": {"strategy": "fsdp"},
}
SQUARE = [
    *(("full", "ddp"), ("lora", "zero1"), ("dora", "zero2"), ("embeddings", "zero3")),
    *(("full", "zero3"), ("lora", "zero3"), ("dora", "ddp"), ("embeddings", "zero2")),
    *(("full", "fsdp"), ("lora", "fsdp")),
]
CELLS = [(mode, strategy) for strategy in STRATEGIES for mode in MODES] if WHOLE else SQUARE
PRECISIONS = ["fp32", "bf16"] if WHOLE else ["fp32"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("mode", "strategy"), CELLS, ids=["-".join(cell) for cell in CELLS])
def test_a_killed_and_resumed_training_is_the_straight_one(
    make_run: MakeRun, forks: Forks, tiny_model: Path, mode: str, strategy: str, precision: str
) -> None:
    model, train = MODES[mode]
    model = {"name": str(tiny_model), **model} if model or mode == "embeddings" else NEW
    train = SHORT | train | STRATEGIES[strategy] | {"precision": precision}

    straight = make_run("straight", model=model, train=train)
    assert straight.train_forked(forks) == [0, 0], straight.output
    seen = straight.seen()
    assert sorted(straight.losses()) == sorted(seen) == list(range(1, STEPS + 1))

    run = make_run("killed", model=model, train=train)
    assert run.train_forked(forks, hang_in=5) == [-9, -9], run.output
    before = run.seen()
    assert run.train_forked(forks, attempt=2, resume=str(run.checkpoint(SAVED))) == [0, 0], (
        run.output
    )
    after = run.seen()

    assert run.losses() == straight.losses()
    assert len(set(straight.losses().values())) == STEPS
    assert sorted(after) == [4, 5, 6]
    assert {step: before[step] for step in (1, 2, 3)} | after == seen
    blocks = [digest for step in seen.values() for digest in step]
    # 2 ranks x 2 micro batches x 6 steps
    assert len(blocks) == len(set(blocks)) == 24
    _same_weights(run, straight)


def _same_weights(one: Run, other: Run) -> None:
    for folder in (one.root, other.root):
        assert list((folder / "model").glob("*.safetensors")), folder
    for path in (one.root / "model").glob("*.safetensors"):
        mine, theirs = load_file(path), load_file(other.root / "model" / path.name)
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert torch.equal(mine[name], theirs[name]), name
