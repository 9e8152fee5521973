"""The train section in the words of both generations of transformers.TrainingArguments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from accelerate.state import AcceleratorState
from packaging.version import Version

from clusterlm.errors import TrainError
from clusterlm.spec.job import Job
from clusterlm.spec.train import Train
from clusterlm.train.arguments import (
    accumulation_steps,
    checkpointing_fields,
    make_arguments,
    needs_reentrant,
    translate_train,
)

V4 = {"warmup_steps", "warmup_ratio", "gradient_checkpointing", "optim", "lr_scheduler_kwargs"}
V5 = {"warmup_steps", "activation_checkpointing", "gradient_checkpointing", "optim"}
STAGE_3 = {"zero_optimization": {"stage": 3}}


def translate(train: dict[str, Any], fields: set[str], **more: Any) -> dict[str, Any]:
    values = {"accumulation": 1, "validates": False} | more
    return translate_train(Train.model_validate(train), fields, **values)


@pytest.mark.parametrize(
    ("fields", "warmup", "expected"),
    [
        (V4, 0.1, {"warmup_ratio": 0.1}),
        (V4, 20, {"warmup_steps": 20}),
        (V5, 0.1, {"warmup_steps": 0.1}),
        (V5, 20, {"warmup_steps": 20}),
    ],
)
def test_warmup_is_a_share_below_one_and_steps_from_one_on(
    fields: set[str], warmup: float, expected: dict[str, float]
) -> None:
    values = translate({"warmup": warmup}, fields)
    assert {name: value for name, value in values.items() if "warmup" in name} == expected


@pytest.mark.parametrize(
    ("fields", "name"), [(V4, "gradient_checkpointing"), (V5, "activation_checkpointing")]
)
def test_activation_checkpointing_has_the_name_of_the_generation(
    fields: set[str], name: str
) -> None:
    expected = {name: True, f"{name}_kwargs": {"use_reentrant": False}}
    assert checkpointing_fields(fields, reentrant=False) == expected


def test_old_checkpoints_only_for_frozen_weights_under_stage_3_of_an_old_deepspeed() -> None:
    old, new = Version("0.19.3"), Version("0.19.4")
    assert needs_reentrant(STAGE_3, frozen=True, installed=old)
    assert not needs_reentrant(STAGE_3, frozen=True, installed=new)
    assert not needs_reentrant(STAGE_3, frozen=False, installed=old)
    assert not needs_reentrant(None, frozen=True, installed=old)


def test_nothing_is_filtered_from_the_loss_and_nothing_is_deleted_by_transformers() -> None:
    values = translate({}, V5)
    assert values["logging_nan_inf_filter"] is False
    assert values["save_total_limit"] is None
    assert values["remove_unused_columns"] is False


def test_evaluation_follows_the_saves_unless_it_has_a_rhythm_of_its_own() -> None:
    assert translate({}, V5)["eval_strategy"] == "no"
    assert translate({"save_steps": 70}, V5, validates=True)["eval_steps"] == 70
    assert translate({"save_steps": 70, "eval_steps": 7}, V5, validates=True)["eval_steps"] == 7


def test_further_keys_go_through_and_go_before_ours() -> None:
    values = translate({"optim": "adafactor", "lr_scheduler_kwargs": {"num_cycles": 2}}, V4)
    assert values["optim"] == "adafactor"
    assert values["lr_scheduler_kwargs"] == {"num_cycles": 2}


@pytest.mark.parametrize(
    ("train", "words"),
    [({"save_total_limit": 1}, "clusterlm decides"), ({"optimm": "x"}, "no argument optimm")],
)
def test_keys_that_would_be_overruled_or_unknown_are_refused(
    train: dict[str, Any], words: str
) -> None:
    with pytest.raises(TrainError, match=words):
        translate(train, V5)


def test_global_batch_size_decides_the_accumulation() -> None:
    job = Job(name="t", train=Train(global_batch_size=64, micro_batch_size=4))
    assert accumulation_steps(job, world_size=8) == 2
    with pytest.raises(TrainError, match="4 x 3 ranks = 12"):
        accumulation_steps(job, world_size=3)
    with pytest.raises(TrainError, match="no multiple"):
        accumulation_steps(job, world_size=32)


@pytest.mark.parametrize(("ranks", "passes"), [(8, 2), (4, 4), (6, 3), (16, 1), (32, 1)])
def test_fewer_ranks_than_asked_for_make_more_passes(ranks: int, passes: int) -> None:
    train = {"micro_batch_size": 3, "gradient_accumulation": 2}
    resources = {"processes_per_node": 8}
    job = Job.model_validate({"name": "t", "resources": resources, "train": train})
    assert accumulation_steps(job, world_size=ranks) == passes


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one, as every rank has one before its arguments are made."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.usefixtures("alone")
def test_the_installed_transformers_takes_what_is_made(tmp_path: Path, precision: str) -> None:
    job = Job.model_validate(
        {"name": "t", "train": {"precision": precision, "activation_checkpointing": True}}
    )
    args = make_arguments(
        job, output_dir=tmp_path, world_size=1, on_cpu=True, validates=True, deepspeed=None
    )
    assert args.bf16 == (precision == "bf16")
    assert args.gradient_checkpointing_kwargs == {"use_reentrant": False}
    assert args.report_to == []


@pytest.mark.usefixtures("alone")
def test_a_value_that_transformers_refuses_is_told_in_words(tmp_path: Path) -> None:
    job = Job.model_validate({"name": "t", "train": {"lr_scheduler": "cosin"}})
    with pytest.raises(TrainError, match="train: .*cosin.* is not a valid SchedulerType"):
        make_arguments(
            job, output_dir=tmp_path, world_size=1, on_cpu=True, validates=False, deepspeed=None
        )
