"""The user's own DeepSpeed JSON, as a spec sees it: what it decides, and what is odd in it.

It is taken as it is. What it says and the job does not is read into the job, so that the two agree;
what both say must be the same (`rules_strategy.py`); what works and may surprise is noted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

from clusterlm.spec.json_files import NoJsonError, read_json_file
from clusterlm.spec.wording import shown

STAGES = (0, 1, 2, 3)
SECTIONS = (
    *("zero_optimization", "bf16", "fp16", "optimizer", "optimizer.params", "scheduler"),
    *("scheduler.params", "zero_optimization.offload_optimizer", "zero_optimization.offload_param"),
)
"""Keys of the JSON that hold an object."""
GATHER = "stage3_gather_16bit_weights_on_model_save"
# 1e9 elements are 2e9 bytes in a 16 bit type
BYTES = 2
# elements from which on a bucket or threshold is worth a word; DeepSpeed's own are 5e8 and below
MANY = 1e9
# weights smaller than the threshold are never split: DeepSpeed's own is 1e5
KEEPS_MUCH = 1e7

SAID_TWICE = (
    ("train_micro_batch_size_per_gpu", "micro_batch_size"),
    ("gradient_accumulation_steps", "gradient_accumulation"),
    ("train_batch_size", "global_batch_size"),
    ("gradient_clipping", "max_grad_norm"),
    ("optimizer.params.lr", "learning_rate"),
    ("optimizer.params.weight_decay", "weight_decay"),
)
"""A key of the JSON and the key of `train` that means the same."""


def read_deepspeed_json(path: str) -> dict[str, Any] | None:
    """What the file holds; None when it is not there or no JSON object."""
    try:
        config = read_json_file(path)
    except NoJsonError:
        return None
    return config if isinstance(config, dict) else None


def faults_of(path: str) -> Iterator[str]:
    """Why DeepSpeed could not take the file, in words."""
    try:
        config = read_json_file(path)
    except NoJsonError as error:
        yield f"{shown(path)} is no JSON: {error}"
        return
    if not isinstance(config, dict):
        yield f"{shown(path)} is no JSON object"
        return
    for key in SECTIONS:
        found = value_at(config, key)
        if found is not None and not isinstance(found, dict):
            yield f"{key} is {shown(found)} there; DeepSpeed takes an object: {{...}}"
    stage = value_at(config, "zero_optimization.stage")
    if stage is not None and (isinstance(stage, bool) or stage not in STAGES):
        yield f"zero_optimization.stage is {shown(stage)} there; write 0, 1, 2 or 3"


def value_at(config: dict[str, Any], key: str) -> Any:
    """The value at a dotted key, None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def follow_json(train: dict[str, Any]) -> list[str]:
    """Read into `train`, as it was written, what only its DeepSpeed JSON says; a note for each."""
    path = train.get("deepspeed")
    if train.get("strategy") != "deepspeed" or not isinstance(path, str):
        return []
    config = read_deepspeed_json(path) or {}
    found = {ours: value_at(config, theirs) for theirs, ours in SAID_TWICE}
    for precision in ("bf16", "fp16"):
        if value_at(config, f"{precision}.enabled") is True:
            found["precision"] = precision
    new = {
        key: value
        for key, value in found.items()
        if key not in train and value is not None and value != "auto"
    }
    train.update(new)
    name = os.path.basename(path)
    return [f"train.{key}: {value}, as {name} says" for key, value in new.items()]


def odd_in_json(path: str, *, num_gpus: int) -> Iterator[str]:
    """What works and is worth a second look, in words."""
    config = read_deepspeed_json(path)
    if config is None:
        return
    name = os.path.basename(path)
    for note in (*_of_stage_3(config), *_of_buckets(config), *_of_the_rest(config, num_gpus)):
        yield f"{name}: {note}"


def _of_stage_3(config: dict[str, Any]) -> Iterator[str]:
    zero = value_at(config, "zero_optimization") or {}
    if zero.get("stage") != 3:
        return
    kept = _number(zero.get("stage3_param_persistence_threshold"))
    if kept >= KEEPS_MUCH:
        yield (
            f"stage3_param_persistence_threshold {kept:.0e} keeps every weight of up to so many "
            "elements whole on each GPU, so stage 3 splits next to nothing; "
            'write "auto" (10 x hidden size) or 1e5'
        )
    if not zero.get(GATHER):
        yield f"{GATHER} is missing; set for this run, else no whole model could be saved"


def _of_buckets(config: dict[str, Any]) -> Iterator[str]:
    zero = value_at(config, "zero_optimization") or {}
    overlap = bool(zero.get("overlap_comm"))
    large = {
        # overlapped communication holds 4.5 buckets (DeepSpeed's documentation of overlap_comm)
        "reduce_bucket_size": 4.5 if overlap else 1.0,
        "allgather_bucket_size": 4.5 if overlap else 1.0,
        "stage3_prefetch_bucket_size": 1.0,
        "sub_group_size": 1.0 if zero.get("offload_optimizer") else 0.0,
    }
    for key, copies in large.items():
        size = _number(zero.get(key))
        if size >= MANY and copies:
            gib = size * BYTES * copies / 2**30
            takes = f"{key} {size:.0e} takes up to {gib:.1f} GiB on each GPU"
            yield f'{takes}; "auto" or 2e8 takes less'


def _of_the_rest(config: dict[str, Any], num_gpus: int) -> Iterator[str]:
    if value_at(config, "fp16.enabled") is True and num_gpus:
        yield (
            "fp16 scales the loss and leaves out steps that overflow; on an A100 or newer bf16 "
            'needs none of that: "bf16": {"enabled": true}'
        )
    if value_at(config, "zero_optimization.offload_optimizer") and "optimizer" not in config:
        yield "no optimizer is named and its state is on the host: DeepSpeed's own AdamW is taken"
    if filled := sorted(_autos(config)):
        yield f'"auto" is filled in from this job: {", ".join(filled)}'


def _autos(config: dict[str, Any]) -> Iterator[str]:
    for key, value in config.items():
        if value == "auto":
            yield key
        elif isinstance(value, dict):
            yield from _autos(value)


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, int | float) and value is not True else 0.0
    except OverflowError:
        # JSON has whole numbers of any length
        return math.inf
