"""LoRA beside frozen weights, through peft.

Names that match no layer are an error here: peft takes those that match and forgets the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from clusterlm.errors import TrainError
from clusterlm.spec.model import Adapter


def add_adapter(model: nn.Module, adapter: Adapter, *, checkpointed: bool) -> Any:
    """Freeze `model` and put small trainable matrices beside the layers asked for.

    `checkpointed` says that activations are recomputed in the backward pass.
    """
    layers = linear_layer_names(model)
    if adapter.target_modules != "all-linear":
        refuse_unmatched("target_modules", adapter.target_modules, model, layers)
    refuse_unmatched("modules_to_save", adapter.modules_to_save, model, layers)
    config = LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        use_dora=adapter.method == "dora",
        target_modules=adapter.target_modules,
        modules_to_save=adapter.modules_to_save or None,
        task_type="CAUSAL_LM",
    )
    # stage 3 packs what is trained into one buffer, so it must have one type; DeepSpeed keeps
    # float32 copies of it anyway
    one_type = is_deepspeed_zero3_enabled()
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 under a name that is to go
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted: Any = get_peft_model(model, config, autocast_adapter_dtype=not one_type)
    if checkpointed:
        # a reentrant checkpoint of frozen layers has no gradient when none of its inputs needs one
        adapted.enable_input_require_grads()
    return adapted


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
