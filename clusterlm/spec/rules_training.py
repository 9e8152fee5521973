"""Rules about what is trained and how; collected in `rules.py`."""

from __future__ import annotations

from collections.abc import Iterator

from clusterlm.errors import Problem
from clusterlm.spec.job import Job
from clusterlm.spec.train import DeepSpeed
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


def model_has_one_origin(job: Job) -> Iterator[Problem]:
    """Exactly one of name and from_scratch; a revision is one of the hub's."""
    model = job.model
    if model is None:
        return
    if model.name is None and model.from_scratch is None:
        yield Problem("model", "write name: ... or from_scratch: {class: ..., config: {...}}")
    if model.name is not None and model.from_scratch is not None:
        yield Problem("model", "has both name and from_scratch; keep one")
    if model.revision is not None and model.name is None:
        yield Problem("model.revision", "belongs to a name; there is none")


def adapter_goes_with_its_mode(job: Job) -> Iterator[Problem]:
    """train.mode: adapter and the section model.adapter, both or neither."""
    if job.train.command is not None or job.model is None:
        return
    if job.train.mode == "adapter" and job.model.adapter is None:
        message = "adapter needs to know which; add model.adapter: {r: 16}, or write mode: full"
        yield Problem("train.mode", message)
    if job.train.mode == "full" and job.model.adapter is not None:
        message = "would not be used: train.mode is full; write train.mode: adapter"
        yield Problem("model.adapter", message)


def adapter_has_targets(job: Job) -> Iterator[Problem]:
    """An empty list of layers trains nothing."""
    if job.model and job.model.adapter and job.model.adapter.target_modules == []:
        message = "is an empty list; name the layers, or write all-linear"
        yield Problem("model.adapter.target_modules", message)


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
    if zero.offload_parameters and zero.stage != 3:
        message = f"splits the weights, which is stage 3; the stage is {zero.stage}"
        yield Problem("train.deepspeed.offload_parameters", message)
    if zero.offload_optimizer and zero.stage == 0:
        message = "splits the optimizer state, which is stage 1 and up; the stage is 0"
        yield Problem("train.deepspeed.offload_optimizer", message)


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


def further_arguments_are_known(job: Job) -> Iterator[Problem]:
    """Further keys of train are TrainingArguments'."""
    yield from check_further_arguments(job.train)


def vocabulary_comes_from_the_tokenizer(job: Job) -> Iterator[Problem]:
    """A vocab_size in the model's config may only repeat that of a tokenizer to be trained."""
    if job.data is None or job.model is None or job.model.from_scratch is None:
        return
    size = job.model.from_scratch.config.get("vocab_size")
    trained = job.data.tokenizer.train
    if size is None or (trained is not None and size == trained.vocab_size):
        return
    other = f"data.tokenizer.train.vocab_size is {trained.vocab_size}" if trained else "its own"
    message = f"{shown(size)}, but the tokenizer decides ({other}); leave it out"
    yield Problem("model.from_scratch.config.vocab_size", message)


def heads_divide(job: Job) -> Iterator[Problem]:
    """hidden_size by num_attention_heads, and those by num_key_value_heads."""
    if job.model is None or job.model.from_scratch is None:
        return
    config = job.model.from_scratch.config
    pairs = [
        ("num_attention_heads", "hidden_size"),
        ("num_key_value_heads", "num_attention_heads"),
    ]
    for key, whole in pairs:
        if key == "num_attention_heads" and "head_dim" in config:
            continue  # heads of their own size need not divide the width
        heads, width = config.get(key), config.get(whole)
        if type(heads) is int and type(width) is int and (heads < 1 or width % heads):
            message = f"{heads} does not divide {whole}, which is {width}"
            yield Problem(f"model.from_scratch.config.{key}", message)
