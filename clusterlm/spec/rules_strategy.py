"""Rules about how ranks share the work, and precision; collected in `rules.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clusterlm.errors import Problem
from clusterlm.spec.job import Job
from clusterlm.spec.train import DeepSpeed


def deepspeed_goes_with_its_strategy(job: Job) -> Iterator[Problem]:
    """The section is read with strategy: deepspeed alone."""
    if job.train.deepspeed is not None and job.train.strategy != "deepspeed":
        message = "would not be used: strategy is ddp; write train.strategy: deepspeed"
        yield Problem("train.deepspeed", message)


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


RULES: tuple[tuple[Callable[[Job], Iterator[Problem]], tuple[str, ...]], ...] = (
    (deepspeed_goes_with_its_strategy, ("train",)),
    (offload_goes_with_its_stage, ("train",)),
)
