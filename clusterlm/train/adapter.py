"""LoRA and its kin beside frozen weights, through peft.

Names that match no layer are an error here: peft takes those that match and forgets the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from clusterlm.errors import TrainError
from clusterlm.spec.model import Adapter
from clusterlm.spec.wording import one_line
from clusterlm.train.adapter_start import Sample, begin
from clusterlm.weights.files import ADAPTER_CONFIG
from clusterlm.weights.whole_load import explain_adapter, faults_of_adapter

__all__ = ["Sample", "add_adapter", "linear_layer_names", "refuse_unmatched"]

WRAPPED = "base_model.model."
"""What peft puts before the names of the base."""
TOLD_BY_PEFT: tuple[tuple[str, type[Warning]], ...] = (
    # it asks transformers 5 under a name that is to go
    ("`is_gradient_checkpointing`", FutureWarning),
    # `_tied_words` knows what was asked for
    (".*tie_word_embeddings.*", UserWarning),
    # errors here
    ("Found missing adapter keys", UserWarning),
    (".*_pattern keys did not match", RuntimeWarning),
    # `adapter_start.py` makes the conversion that peft cannot
    ("Using Rank-Stabilized LoRA with", UserWarning),
    (".*eva initialization used with", UserWarning),
)
"""Warnings that say nothing to the user of a job.yaml."""


def add_adapter(
    model: nn.Module,
    adapter: Adapter,
    *,
    checkpointed: bool,
    tokens: Sequence[int] = (),
    splits_weights: bool = False,
    sample: Sample | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Any:
    """Freeze `model` and put small trainable matrices beside the layers asked for.

    Args:
        model: changed in place.
        adapter: the section of the spec.
        checkpointed: activations are recomputed in the backward pass.
        tokens: rows of the embedding that are trained too.
        splits_weights: ZeRO-3 or FSDP.
        sample: gives some batches of the data; for init: eva.
        say: takes a line for what may surprise.
    """
    if splits_weights:
        refuse_split_weights(adapter, tokens)
    # stage 3 packs what is trained into one buffer, so it must have one type; DeepSpeed keeps
    # float32 copies of it anyway
    one_type = is_deepspeed_zero3_enabled()
    with _peft_quiet():
        if adapter.continue_from is not None:
            adapted = _continued(model, adapter.continue_from, one_type=one_type)
        else:
            adapted = _new(model, adapter, tokens, one_type=one_type, say=say)
    if adapter.continue_from is None:
        begin(adapted, sample)
    if not one_type:
        _train_in_float32(adapted)
    if checkpointed:
        # a reentrant checkpoint of frozen layers has no gradient when none of its inputs needs one
        adapted.enable_input_require_grads()
    return adapted


@contextlib.contextmanager
def _peft_quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        for words, kind in TOLD_BY_PEFT:
            warnings.filterwarnings("ignore", words, kind)
        yield


def refuse_split_weights(adapter: Adapter, tokens: Sequence[int]) -> None:
    """Say what needs whole weights where each rank holds a part of them."""
    where = "where ZeRO stage 3 or FSDP has split them; use strategy: ddp, or ZeRO stage 2"
    if adapter.init.startswith(("pissa", "olora", "eva")):
        raise TrainError(
            f"model.adapter.init: {adapter.init} is computed from whole weights and cannot be "
            f"{where}"
        )
    if tokens:
        raise TrainError(
            f"model.adapter.trainable_tokens: single rows of an embedding cannot be trained {where}"
        )


def linear_layer_names(model: nn.Module) -> list[str]:
    """Last parts of the names of the linear layers, each once, sorted."""
    # Conv1D is what GPT-2 calls its linear layers
    kinds = ("Linear", "Conv1D")
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if type(module).__name__ in kinds or isinstance(module, nn.Linear)
    }
    return sorted(names)


def refuse_unmatched(key: str, asked: Iterable[str], model: nn.Module, layers: list[str]) -> None:
    """Refuse names that are no module of the model, the way peft matches them."""
    modules = [name for name, _ in model.named_modules()]
    missing = [
        name for name in asked if not any(f".{module}".endswith(f".{name}") for module in modules)
    ]
    if missing:
        raise TrainError(
            f"model.adapter.{key}: no layer is named {', '.join(missing)}; "
            f"linear layers of this model: {', '.join(layers)}"
        )


def _new(
    model: nn.Module,
    adapter: Adapter,
    tokens: Sequence[int],
    *,
    one_type: bool,
    say: Callable[[str], None],
) -> Any:
    layers = linear_layer_names(model)
    if adapter.target_modules != "all-linear":
        refuse_unmatched("target_modules", adapter.target_modules, model, layers)
    refuse_unmatched("exclude_modules", adapter.exclude_modules, model, layers)
    refuse_unmatched("modules_to_save", adapter.modules_to_save, model, layers)
    settings = _settings(adapter)
    ends = _ends(model)
    if tokens:
        # tied, the head shows the same rows; apart, it has rows of its own for these entries
        settings["trainable_token_indices"] = {name: list(tokens) for name in ends}
    if len(ends) == 1 and _saves_an_end(model, adapter):
        settings["ensure_weight_tying"] = True
        say(_tied_words(adapter, LoraConfig))
    config = LoraConfig(**_supported(settings))
    try:
        adapted = get_peft_model(model, config, autocast_adapter_dtype=not one_type)
    except ValueError as error:
        raise TrainError(f"model.adapter: {one_line(error)}") from error
    _refuse_unmatched_patterns(adapter, adapted)
    return adapted


def _settings(adapter: Adapter) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "r": adapter.r,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "use_dora": adapter.method == "dora",
        "use_rslora": adapter.rslora,
        "init_lora_weights": True if adapter.init == "default" else adapter.init,
        "bias": adapter.bias,
        "target_modules": adapter.target_modules,
        "rank_pattern": adapter.rank_pattern,
        "alpha_pattern": adapter.alpha_pattern,
        "modules_to_save": adapter.modules_to_save or None,
        "task_type": "CAUSAL_LM",
    }
    if adapter.exclude_modules:
        settings["exclude_modules"] = adapter.exclude_modules
    if adapter.init == "eva":
        # rho 1: every layer keeps the rank asked for, so a resume elsewhere has the same shapes
        settings["eva_config"] = peft.EvaConfig(rho=1.0)
    return settings


def _supported(settings: dict[str, Any]) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(LoraConfig)}
    # the copies go apart then, which `_tied_words` tells
    optional = {"ensure_weight_tying"}
    if missing := sorted(set(settings) - known - optional):
        raise TrainError(
            f"model.adapter: peft {peft.__version__} knows no {', '.join(missing)}; use a newer one"
        )
    return {key: value for key, value in settings.items() if key in known}


def _ends(model: Any) -> list[str]:
    """Names of the input embedding and of the output head; one name when they are one matrix."""
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    tied = last is None or first.weight is last.weight
    wanted = [first] if tied else [first, last]
    return [name for part in wanted for name, module in model.named_modules() if module is part]


def _saves_an_end(model: Any, adapter: Adapter) -> bool:
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    names = [name for name, module in model.named_modules() if any(module is end for end in ends)]
    return any(
        f".{name}".endswith(f".{asked}") for name in names for asked in adapter.modules_to_save
    )


def _tied_words(adapter: Adapter, config_class: Any) -> str:
    asked = ", ".join(adapter.modules_to_save)
    known = {field.name for field in dataclasses.fields(config_class)}
    if "ensure_weight_tying" in known:
        return (
            f"modules_to_save: {asked}: embedding and output head of this model are one matrix; "
            "they are trained as one and stay tied"
        )
    return (
        f"modules_to_save: {asked}: embedding and output head of this model are one matrix, and "
        f"peft {peft.__version__} cannot keep them so: only {asked} is trained, the other stays as "
        "it was, and a merged model has both apart"
    )


def _refuse_unmatched_patterns(adapter: Adapter, adapted: Any) -> None:
    # as the base calls them: peft looks for these, and a pattern may begin with ^model
    names = [
        name.removeprefix(WRAPPED)
        for name, module in adapted.named_modules()
        if hasattr(module, "lora_A")
    ]
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(adapter, key):
            # as peft matches them
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
                shown = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
                raise TrainError(
                    f"model.adapter.{key}: {pattern} is no layer that gets an adapter; "
                    f"those that do: {shown}, with names such as {names[0]}"
                )


def _continued(model: Any, folder: str, *, one_type: bool) -> Any:
    """The adapter in `folder` beside the model, to be trained on; its settings are its own."""
    if not (Path(folder) / ADAPTER_CONFIG).is_file():
        raise TrainError(f"model.adapter.continue_from: {folder} holds no adapter_config.json")
    try:
        adapted = PeftModel.from_pretrained(
            model, folder, is_trainable=True, autocast_adapter_dtype=not one_type
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise TrainError(
            f"model.adapter.continue_from: the adapter in {folder} does not fit the model: "
            f"{explain_adapter(folder, error)}"
        ) from error
    if faults := faults_of_adapter(adapted, Path(folder)):
        raise TrainError(
            f"model.adapter.continue_from: the adapter in {folder} does not fit the model: "
            f"{'; '.join(faults)}"
        )
    return adapted


def _train_in_float32(model: Any) -> None:
    """What is trained in bf16 alone loses small steps; frozen weights stay as they are."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()
