"""How an adapter begins, where that takes more than drawing numbers.

    eva            the first singular vectors of what goes into each layer, on blocks of the data
    pissa, olora   parts of the weights themselves, which are taken out of the frozen weights

The second kind changes the base: adapter and base as published would not be the trained model. So
the adapter is saved as what it has become less what it was at the start:

    W = R + s B0 A0 (start),   trained: R + s B A = W + s [B, -B0] [A; A0]

That is a plain LoRA of twice the rank beside the untouched base; nothing is rounded but the base
itself, when it is kept in bf16. Checkpoints keep the trained halves alone: a resume makes the same
start again, from the same weights and seed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from clusterlm.errors import TrainError
from clusterlm.weights.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS

Sample = Callable[[], list[dict[str, torch.Tensor]]]
CHANGES_BASE = ("pissa", "olora")
START = "start_of_adapter"
"""Attribute of a model: the first values of its adapter, by the names they are saved under."""


def begin(adapted: Any, sample: Sample | None) -> None:
    """What is left to do for a new adapter once peft has put it beside the weights."""
    init = str(adapted.peft_config["default"].init_lora_weights)
    if init == "eva":
        begin_from_data(adapted, sample)
    elif init.startswith(CHANGES_BASE):
        remember_start(adapted)


def begin_from_data(adapted: Any, sample: Sample | None) -> None:
    """EVA (https://arxiv.org/abs/2410.07170): every rank sees the same blocks, so none must ask."""
    from peft import initialize_lora_eva_weights

    if sample is None:
        raise TrainError("model.adapter.init: eva needs the prepared data, and there is none here")
    place = next(adapted.parameters()).device
    batches = [{name: value.to(place) for name, value in batch.items()} for batch in sample()]
    initialize_lora_eva_weights(
        adapted, batches, gather_distributed_inputs=False, show_progress_bar=False
    )


def remember_start(adapted: Any) -> None:
    """Keep the first values of an adapter that was cut out of the base."""
    start = {
        name.replace(".default", ""): parameter.detach().clone().cpu()
        for name, parameter in adapted.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }
    setattr(adapted, START, start)


def stand_on_original_base(folder: Path, adapted: Any) -> None:
    """Rewrite the adapter saved in `folder` so that it belongs to the base as it was loaded."""
    start: dict[str, torch.Tensor] | None = getattr(adapted, START, None)
    if start is None:
        return
    weights = folder / ADAPTER_WEIGHTS
    saved = load_file(weights)
    for name, first in start.items():
        if ".lora_A." in name:
            saved[name] = torch.cat([saved[name], first.to(saved[name].dtype)])
        else:
            saved[name] = torch.cat([saved[name], -first.to(saved[name].dtype)], dim=1)
    save_file({n: t.contiguous() for n, t in saved.items()}, weights, metadata={"format": "pt"})
    file = folder / ADAPTER_CONFIG
    config = doubled_rank(json.loads(file.read_text("utf-8")))
    file.write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")


def doubled_rank(config: dict[str, Any]) -> dict[str, Any]:
    """An adapter's settings for twice the rank and the same scale, as a plain LoRA."""
    # scale is alpha / r, with rslora alpha / sqrt(r)
    factor = math.sqrt(2) if config.get("use_rslora") else 2
    ranks = config.get("rank_pattern") or {}
    alphas = config.get("alpha_pattern") or {}
    return config | {
        "r": 2 * config["r"],
        "lora_alpha": factor * config["lora_alpha"],
        "rank_pattern": {name: 2 * rank for name, rank in ranks.items()},
        "alpha_pattern": {name: factor * alpha for name, alpha in alphas.items()},
        "init_lora_weights": True,
    }
