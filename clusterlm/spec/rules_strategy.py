"""Rules about how ranks share the work, and precision; collected in `rules.py`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from clusterlm.errors import Problem
from clusterlm.spec.deepspeed_json import faults_of, odd_in_json, read_deepspeed_json, value_at
from clusterlm.spec.job import Job
from clusterlm.spec.train import DeepSpeed
from clusterlm.spec.wording import shown


def deepspeed_goes_with_its_strategy(job: Job) -> Iterator[Problem]:
    """The section is read with strategy: deepspeed alone."""
    if job.train.deepspeed is not None and job.train.strategy != "deepspeed":
        strategy = job.train.strategy
        message = f"would not be used: strategy is {strategy}; write train.strategy: deepspeed"
        yield Problem("train.deepspeed", message)


def fsdp_goes_with_its_strategy(job: Job) -> Iterator[Problem]:
    """The section is read with strategy: fsdp alone."""
    if job.train.fsdp is not None and job.train.strategy != "fsdp":
        message = f"would not be used: strategy is {job.train.strategy}; write train.strategy: fsdp"
        yield Problem("train.fsdp", message)


def fsdp_has_ranks_to_split_over(job: Job) -> Iterator[Problem]:
    """One rank has nobody to share with."""
    if job.train.strategy == "fsdp" and job.resources.world_size == 1 and not job.train.command:
        message = "fsdp splits the model over ranks, and there is one; write ddp"
        yield Problem("train.strategy", message)


def offload_goes_with_its_stage(job: Job) -> Iterator[Problem]:
    """What is not split over the ranks cannot be kept in host memory."""
    zero = job.train.deepspeed
    if not isinstance(zero, DeepSpeed):
        return
    if zero.offload_parameters and zero.stage not in (3, "auto"):
        message = f"splits the weights, which is stage 3; the stage is {zero.stage}"
        yield Problem("train.deepspeed.offload_parameters", message)
    if zero.offload_optimizer and zero.stage == 0:
        message = "splits the optimizer state, which is stage 1 and up; the stage is 0"
        yield Problem("train.deepspeed.offload_optimizer", message)


def fp16_has_a_gpu(job: Job) -> Iterator[Problem]:
    """No CPU trains in it."""
    if job.train.precision == "fp16" and not job.resources.gpus_per_node and not job.train.command:
        message = "fp16 needs a GPU, and resources.gpus_per_node is 0; write bf16 or fp32"
        yield Problem("train.precision", message)


def fp16_scales_float32(job: Job) -> Iterator[Problem]:
    """The scaler of the loss knows gradients of float32 alone."""
    if job.train.precision != "fp16" or job.train.command is not None:
        return
    if job.train.strategy == "fsdp":
        message = "fp16 is not supported with strategy: fsdp; write bf16, or strategy: deepspeed"
        yield Problem("train.precision", message)
    if job.train.strategy == "ddp" and job.model and job.model.dtype == "bfloat16":
        message = "fp16 arithmetic scales the gradients of float32 weights; write float32"
        yield Problem("model.dtype", message)


def deepspeed_json_agrees(job: Job) -> Iterator[Problem]:
    """A DeepSpeed JSON says "auto", or the same as the job."""
    path = job.train.deepspeed
    if path is None or isinstance(path, DeepSpeed):
        return
    where = "train.deepspeed"
    if not os.path.isfile(path):
        yield Problem(where, f"there is no file {shown(path)}")
        return
    faults = list(faults_of(path))
    yield from (Problem(where, fault) for fault in faults)
    config = read_deepspeed_json(path)
    if faults or config is None:
        return
    for key, wanted, ours in _deepspeed_pairs(job):
        found = value_at(config, key)
        if found not in (None, "auto", wanted):
            message = f"{key} is {shown(found)} there, but {shown(wanted)} here ({ours})"
            yield Problem(where, f'{message}; write "auto" there')


def _deepspeed_pairs(job: Job) -> Iterator[tuple[str, Any, str]]:
    train = job.train
    yield "train_batch_size", job.global_batch_size, "micro_batch_size x accumulation x ranks"
    yield "train_micro_batch_size_per_gpu", train.micro_batch_size, "train.micro_batch_size"
    yield "gradient_accumulation_steps", job.gradient_accumulation, "train.gradient_accumulation"
    yield "gradient_clipping", train.max_grad_norm, "train.max_grad_norm"
    yield "optimizer.params.lr", train.learning_rate, "train.learning_rate"
    yield "optimizer.params.weight_decay", train.weight_decay, "train.weight_decay"
    yield "bf16.enabled", train.precision == "bf16", f"train.precision is {train.precision}"
    yield "fp16.enabled", train.precision == "fp16", f"train.precision is {train.precision}"


def notes_on(job: Job) -> list[str]:
    """What works and may surprise: in a DeepSpeed JSON, and when nodes are lost."""
    path = job.train.deepspeed
    if not isinstance(path, str) or job.train.strategy != "deepspeed":
        return []
    return list(odd_in_json(path, num_gpus=job.resources.gpus_per_node))


RULES: tuple[tuple[Callable[[Job], Iterator[Problem]], tuple[str, ...]], ...] = (
    (deepspeed_goes_with_its_strategy, ("train",)),
    (fsdp_goes_with_its_strategy, ("train",)),
    (fsdp_has_ranks_to_split_over, ("train", "resources")),
    (offload_goes_with_its_stage, ("train",)),
    (fp16_has_a_gpu, ("train", "resources")),
    (fp16_scales_float32, ("train", "model")),
    (deepspeed_json_agrees, ("train", "resources")),
)
