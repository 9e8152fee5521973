"""Rules about the model, its vocabulary and its adapter; collected in `rules.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clusterlm.errors import Problem
from clusterlm.spec.job import Job
from clusterlm.spec.wording import shown


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


RULES: tuple[tuple[Callable[[Job], Iterator[Problem]], tuple[str, ...]], ...] = (
    (model_has_one_origin, ("model",)),
    (adapter_goes_with_its_mode, ("model", "train")),
    (adapter_has_targets, ("model",)),
    (vocabulary_comes_from_the_tokenizer, ("data", "model")),
    (heads_divide, ("model",)),
)
