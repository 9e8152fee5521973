"""Rules about data, batches and further keys of a training; collected in `rules.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clusterlm.errors import Problem
from clusterlm.spec.job import Job
from clusterlm.spec.training_arguments import OPTIMIZERS, SCHEDULERS, check_further_arguments
from clusterlm.spec.wording import did_you_mean, shown


def data_and_model_are_given(job: Job) -> Iterator[Problem]:
    """The built-in trainer needs both; a script of the user's own may need neither."""
    if job.train.command is not None:
        return
    if job.data is None:
        yield Problem("data", "is missing; give sources and a tokenizer, or your own train.command")
    if job.model is None:
        yield Problem("model", "is missing; write model: {name: ...}, or from_scratch")


def global_batch_adds_up(job: Job) -> Iterator[Problem]:
    """global_batch_size = micro_batch_size x gradient_accumulation x ranks."""
    train, ranks = job.train, job.resources.world_size
    total, accumulation = train.global_batch_size, train.gradient_accumulation
    if total is None:
        return
    where, micro = "train.global_batch_size", train.micro_batch_size
    if accumulation is not None:
        product = micro * accumulation * ranks
        if product != total:
            message = (
                f"{total} is not micro_batch_size {micro} x gradient_accumulation {accumulation} x "
                f"ranks {ranks} = {product}; write {product}, or leave gradient_accumulation out"
            )
            yield Problem(where, message)
        return
    step = micro * ranks
    if total % step:
        below, above = total // step * step, (total // step + 1) * step
        nearest = f"{below} or {above}" if below else f"{above}"
        message = (
            f"{total} is no multiple of micro_batch_size {micro} x ranks {ranks} = {step}; "
            f"the nearest that work: {nearest}"
        )
        yield Problem(where, message)


def evaluation_has_data(job: Job) -> Iterator[Problem]:
    """eval_steps needs something to evaluate on."""
    if job.train.eval_steps is None or job.train.command is not None or job.data is None:
        return
    if not job.data.holds_back:
        message = "there is no validation data; add data.validation: {fraction: 0.05}"
        yield Problem("train.eval_steps", message)


def names_are_known(job: Job) -> Iterator[Problem]:
    """Scheduler and optimizer are looked up by transformers, hours later."""
    if job.train.command is not None:
        return
    optimizer = job.train.further_arguments.get("optim")
    for key, found, accepted in [
        ("lr_scheduler", job.train.lr_scheduler, SCHEDULERS),
        ("optim", optimizer if isinstance(optimizer, str) else None, OPTIMIZERS),
    ]:
        if found is not None and found not in accepted:
            message = f"{shown(found)} is not known; {did_you_mean(found, accepted)}"
            yield Problem(f"train.{key}", message)


SCHEDULER_NEEDS = {
    "cosine_with_min_lr": ("min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("min_lr", "min_lr_rate"),
    "warmup_stable_decay": ("num_decay_steps",),
}
"""Schedulers that cannot be made without one of these."""


def schedulers_have_what_they_need(job: Job) -> Iterator[Problem]:
    """Some are made with an argument of their own, for which transformers asks in the training."""
    needed = SCHEDULER_NEEDS.get(job.train.lr_scheduler)
    given = job.train.further_arguments.get("lr_scheduler_kwargs")
    if job.train.command is not None or needed is None:
        return
    if not isinstance(given, dict) or not set(needed) & set(given):
        names = " or ".join(needed)
        message = (
            f"{job.train.lr_scheduler} needs {names}: add lr_scheduler_kwargs: {{{needed[0]}: ...}}"
        )
        yield Problem("train.lr_scheduler", message)


def further_arguments_are_known(job: Job) -> Iterator[Problem]:
    """Further keys of train are TrainingArguments'."""
    yield from check_further_arguments(job.train)


RULES: tuple[tuple[Callable[[Job], Iterator[Problem]], tuple[str, ...]], ...] = (
    (data_and_model_are_given, ("data", "model", "train")),
    (global_batch_adds_up, ("train", "resources")),
    (evaluation_has_data, ("data", "train")),
    (schedulers_have_what_they_need, ("train",)),
    (names_are_known, ("train",)),
    (further_arguments_are_known, ()),
)
