"""Rules about what of a model is trained: modes, adapters, bits; collected in `rules.py`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

from clusterlm.errors import Problem
from clusterlm.spec.job import Job
from clusterlm.spec.model import Adapter, Model
from clusterlm.spec.train import DeepSpeed
from clusterlm.spec.wording import shown

EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")
"""What families of models call their input embedding."""
SPLIT = "strategy: fsdp and DeepSpeed's stage 3 split the weights over the ranks"


def adapter_goes_with_its_mode(job: Job) -> Iterator[Problem]:
    """train.mode: adapter and the section model.adapter, both or neither."""
    if job.train.command is not None or job.model is None:
        return
    if job.train.mode == "adapter" and job.model.adapter is None:
        message = "adapter needs to know which; add model.adapter: {r: 16}, or write mode: full"
        yield Problem("train.mode", message)
    if job.train.mode != "adapter" and job.model.adapter is not None:
        message = f"would not be used: train.mode is {job.train.mode}; write train.mode: adapter"
        yield Problem("model.adapter", message)


def adapter_has_a_trained_base(job: Job) -> Iterator[Problem]:
    """Beside random weights nothing is learned, and they would not be saved."""
    if _adapter(job) is not None and job.model and job.model.from_scratch is not None:
        message = (
            "an adapter goes beside the weights of a trained model, which are not saved with it; "
            "write model.name, or train the new model with train.mode: full first"
        )
        yield Problem("model.from_scratch", message)


def trainable_goes_with_its_mode(job: Job) -> Iterator[Problem]:
    """Mode partial and the patterns, both or neither."""
    mode, patterns = job.train.mode, job.train.trainable
    if mode == "partial" and not patterns and job.train.command is None:
        message = 'is empty, and mode partial trains what it names; write ["*.layers.3.*"]'
        yield Problem("train.trainable", message)
    if mode != "partial" and patterns:
        yield Problem("train.trainable", f"would not be used: mode is {mode}; write mode: partial")


def adapter_has_targets(job: Job) -> Iterator[Problem]:
    """An empty list of layers, or of tokens, trains nothing."""
    adapter = _adapter(job)
    if adapter and adapter.target_modules == []:
        message = "is an empty list; name the layers, or write all-linear"
        yield Problem("model.adapter.target_modules", message)
    if adapter and adapter.trainable_tokens == []:
        message = "is an empty list; give token ids, write new, or leave it out"
        yield Problem("model.adapter.trainable_tokens", message)


def patterns_are_positive(job: Job) -> Iterator[Problem]:
    """A rank of 0 is no adapter; peft fails on it when the model is loaded."""
    adapter = _adapter(job)
    for key in ("rank_pattern", "alpha_pattern"):
        pattern = getattr(adapter, key, {})
        for name, value in pattern.items() if isinstance(pattern, dict) else ():
            if not value > 0:
                message = f"{shown(name)} has {value}; write more than 0"
                yield Problem(f"model.adapter.{key}", message)
            try:
                re.compile(name)
            except re.error as error:
                message = f"{shown(name)} is no name and no regular expression: {error}"
                yield Problem(f"model.adapter.{key}", message)


def continued_adapter_stands_alone(job: Job) -> Iterator[Problem]:
    """An adapter that is gone on with brings its settings; its folder is there."""
    adapter = _adapter(job)
    folder = adapter.continue_from if adapter else None
    if adapter is None or folder is None:
        return
    where = "model.adapter.continue_from"
    # a spec that was written whole, as in a run directory, says every key
    changed = sorted(_changed(adapter) - {"continue_from"})
    if changed:
        message = f"brings the adapter's own settings; take out {', '.join(changed)}"
        yield Problem(where, message)
    elif not os.path.isfile(os.path.join(folder, "adapter_config.json")):
        message = f"{shown(folder)} holds no adapter_config.json; give the model/ of a run"
        yield Problem(where, message)


def _changed(adapter: Adapter) -> set[str]:
    standard = Adapter()
    return {key for key in Adapter.model_fields if getattr(adapter, key) != getattr(standard, key)}


def adapter_starts_from_whole_weights(job: Job) -> Iterator[Problem]:
    """What is computed from weights needs all of them, and as they are."""
    adapter = _adapter(job)
    if adapter is None or job.model is None:
        return
    init, where = adapter.init, "model.adapter.init"
    if init.startswith(("pissa", "olora", "eva")) and splits_weights(job):
        message = f"{init} is computed from whole weights, and {SPLIT}; use ddp, or stage 2"
        yield Problem(where, message)
    elif init.startswith(("pissa", "olora")) and job.model.quantization is not None:
        message = f"{init} changes the weights, which quantization would round once more"
        yield Problem(where, f"{message}; write default or eva, or take model.quantization out")
    # a path would have been read by now
    pattern = adapter.rank_pattern if isinstance(adapter.rank_pattern, dict) else {}
    ranks = [adapter.r, *pattern.values()]
    if init == "orthogonal" and any(rank % 2 for rank in ranks):
        yield Problem(where, "orthogonal needs even ranks: half of each is one of two subspaces")


def tokens_are_trained_once(job: Job) -> Iterator[Problem]:
    """Single rows, or the whole embedding; and rows that are known."""
    adapter = _adapter(job)
    if adapter is None or job.model is None or adapter.trainable_tokens is None:
        return
    where = "model.adapter.trainable_tokens"
    whole = sorted(set(EMBEDDINGS) & {name.rpartition(".")[2] for name in adapter.modules_to_save})
    if whole:
        message = f"modules_to_save trains every row of {whole[0]} already; keep one of the two"
        yield Problem(where, message)
    elif splits_weights(job):
        message = f"single rows cannot be trained here: {SPLIT}; use ddp, or stage 2"
        yield Problem(where, message)
    elif adapter.trainable_tokens == "new" and _has_no_new_tokens(job, job.model):
        message = "there are none: the tokenizer is the model's own; add data.tokenizer.extend"
        yield Problem(where, message)


def _has_no_new_tokens(job: Job, model: Model) -> bool:
    if job.data is None:
        return False
    tokenizer = job.data.tokenizer
    return tokenizer.extend is None and tokenizer.name == model.name


def quantization_goes_with_an_adapter(job: Job) -> Iterator[Problem]:
    """Weights in 4 or 8 bits cannot be trained, only what stands beside them."""
    model, where = job.model, "model.quantization"
    if model is None or model.quantization is None or job.train.command is not None:
        return
    if job.train.mode != "adapter":
        message = f"{model.quantization} weights are frozen; write train.mode: adapter"
        yield Problem(where, f"{message} and model.adapter, or take this out")
    elif job.resources.gpus_per_node == 0:
        message = "needs a GPU (bitsandbytes); write resources.gpus_per_node, or take this out"
        yield Problem(where, message)
    elif model.quantization == "int8" and splits_weights(job):
        yield Problem(where, f"int8 cannot be split, and {SPLIT}; write nf4, or use ddp or stage 2")


def splits_weights(job: Job) -> bool:
    """Whether the job says so; stage auto and an own JSON are seen when the model is made."""
    if job.train.strategy == "fsdp":
        return True
    zero = job.train.deepspeed
    return job.train.strategy == "deepspeed" and isinstance(zero, DeepSpeed) and zero.stage == 3


def notes_on(job: Job) -> list[str]:
    """What is right and may still surprise."""
    adapter = _adapter(job)
    notes = []
    if adapter and adapter.method == "dora" and splits_weights(job):
        notes.append(
            "model.adapter.method: dora takes the length of every whole weight in each pass, and "
            f"{SPLIT}: slow; lora, or stage 2, is not"
        )
    return notes


def _adapter(job: Job) -> Adapter | None:
    if job.train.command is not None or job.model is None:
        return None
    return job.model.adapter


RULES: tuple[tuple[Callable[[Job], Iterator[Problem]], tuple[str, ...]], ...] = (
    (adapter_goes_with_its_mode, ("model", "train")),
    (adapter_has_a_trained_base, ("model", "train")),
    (trainable_goes_with_its_mode, ("train",)),
    (adapter_has_targets, ("model", "train")),
    (patterns_are_positive, ("model", "train")),
    (continued_adapter_stands_alone, ("model", "train")),
    (adapter_starts_from_whole_weights, ("model", "train")),
    (tokens_are_trained_once, ("data", "model", "train")),
    (quantization_goes_with_an_adapter, ("model", "train", "resources")),
)
