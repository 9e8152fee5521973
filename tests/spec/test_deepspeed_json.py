"""The user's own DeepSpeed JSON: what it decides for the job, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clusterlm.spec.deepspeed_json import odd_in_json
from tests.spec.conftest import Load, Refuse

HOST = {"device": "cpu", "pin_memory": True}
# the file of a well-known page about training on The Pile
PILE: dict[str, Any] = {
    "zero_optimization": {
        "stage": 3,
        "offload_param": HOST,
        "offload_optimizer": HOST,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "sub_group_size": 1e9,
        "reduce_bucket_size": 1e9,
        "stage3_prefetch_bucket_size": 1e9,
        "stage3_param_persistence_threshold": 1e9,
    },
    "fp16": {"enabled": True, "loss_scale": 0, "min_loss_scale": 1},
    "gradient_clipping": 1.0,
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
}
GPUS = {"train.strategy": "deepspeed", "resources.gpus_per_node": 8}


def test_precision_follows_the_json_where_it_is_not_written(load: Load, folder: Path) -> None:
    (folder / "ds.json").write_text(json.dumps(PILE))
    loaded = load(GPUS | {"train.deepspeed": "ds.json"})
    assert loaded.job.train.precision == "fp16"
    assert "train.precision: fp16, as ds.json says" in loaded.notes


def test_what_the_job_says_must_not_contradict(refuse: Refuse, folder: Path) -> None:
    (folder / "ds.json").write_text(json.dumps(PILE))
    found = refuse(GPUS | {"train.deepspeed": "ds.json", "train.precision": "bf16"})
    assert "fp16.enabled is true there, but false here" in found["train.deepspeed"]


def test_fp16_of_a_json_needs_a_gpu_too(refuse: Refuse, folder: Path) -> None:
    (folder / "ds.json").write_text(json.dumps(PILE))
    found = refuse({"train.strategy": "deepspeed", "train.deepspeed": "ds.json"})
    assert "fp16 needs a GPU" in found["train.precision"]


def test_numbers_of_the_json_are_those_of_the_job(load: Load, folder: Path) -> None:
    own = {
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 0.5,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "weight_decay": "auto"}},
    }
    (folder / "ds.json").write_text(json.dumps(own))
    train = load(GPUS | {"train.deepspeed": "ds.json"}).job.train
    assert (train.micro_batch_size, train.gradient_accumulation) == (4, 2)
    assert (train.max_grad_norm, train.learning_rate, train.weight_decay) == (0.5, 1e-3, 0.0)
    assert train.precision == "bf16"


@pytest.mark.parametrize(
    "words",
    [
        "stage 3 splits next to nothing",
        "stage3_gather_16bit_weights_on_model_save is missing; set for this run",
        "reduce_bucket_size 1e+09 takes up to 8.4 GiB",
        "stage3_prefetch_bucket_size 1e+09 takes up to 1.9 GiB",
        "sub_group_size 1e+09",
        "on an A100 or newer bf16",
        "DeepSpeed's own AdamW is taken",
        'from this job: train_batch_size, train_micro_batch_size_per_gpu"',
    ],
)
def test_what_is_odd_is_noted(tmp_path: Path, words: str) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(PILE))
    notes = list(odd_in_json(str(path), num_gpus=8))
    assert all(note.startswith("ds.json: ") for note in notes)
    assert any(words.rstrip('"') in note for note in notes)


def test_a_plain_json_has_nothing_odd(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 2, "reduce_bucket_size": 2e8}}))
    assert list(odd_in_json(str(path), num_gpus=8)) == []
    assert list(odd_in_json(str(tmp_path / "none.json"), num_gpus=8)) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{nope", "is no JSON: Expecting property name"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "is no JSON object"),
        ('{"zero_optimization": true}', "zero_optimization is true there"),
        ('{"zero_optimization": "auto"}', 'zero_optimization is "auto" there'),
        ('{"bf16": [1]}', "bf16 is a list there"),
        ('{"zero_optimization": {"stage": "auto"}}', "write 0, 1, 2 or 3"),
        ('{"zero_optimization": {"stage": 2, "offload_optimizer": "cpu"}}', "takes an object"),
    ],
)
def test_what_deepspeed_could_not_take_is_told_before_the_job_waits(
    refuse: Refuse, folder: Path, text: str, says: str
) -> None:
    (folder / "ds.json").write_text(text)
    found = refuse({"train.strategy": "deepspeed", "train.deepspeed": "ds.json"})
    assert says in found["train.deepspeed"]


def test_a_number_that_no_float_can_hold_is_only_large(load: Load, folder: Path) -> None:
    zero = {"stage": 3, "stage3_param_persistence_threshold": 10**400}
    (folder / "ds.json").write_text(json.dumps({"zero_optimization": zero}))
    loaded = load({"train.strategy": "deepspeed", "train.deepspeed": "ds.json"})
    assert any("keeps every weight" in note for note in loaded.notes)


def test_what_is_no_file_is_never_read(refuse: Refuse) -> None:
    # it would be read until the memory is full
    found = refuse({"train.strategy": "deepspeed", "train.deepspeed": "/dev/zero"})
    assert "there is no file" in found["train.deepspeed"]
