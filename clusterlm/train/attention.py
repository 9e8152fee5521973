"""Which implementation of attention is used, so that documents of a block never see each other.

    flash_attention_3, _2   a GPU, bf16 or fp16, flash-attn installed; told where documents begin
    sdpa                    everywhere; transformers makes its mask from the positions
    eager                   for models that have nothing else
    flex_attention          on a GPU, where asked for: it is compiled first

Whether positions keep documents apart depends on the class of the model (Mamba and BLOOM take no
notice of them), so nothing is believed: `isolation.py` tries it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch

from clusterlm.errors import TrainError
from clusterlm.train.isolation import NotIsolated, find_class, refuse_unsupported, try_isolation

FLASH = {
    "flash_attention_3": ("flash_attn_interface", (9, 0)),
    "flash_attention_2": ("flash_attn", (8, 0)),
}
"""Python module that it needs, and compute capability of the GPU."""


@dataclass(frozen=True)
class Chosen:
    """An implementation of attention.

    Attributes:
        name: as transformers spells it in attn_implementation.
        why: in words, for the log.
    """

    name: str
    why: str


def choose_attention(
    asked: str,
    *,
    on_cpu: bool,
    isolated: bool,
    precision: str,
    model_class: type | str | None,
    config: Any,
) -> Chosen:
    """The implementation asked for, or with auto the fastest that keeps documents apart here.

    Args:
        asked: model.attention.
        on_cpu: there is no GPU to train on.
        isolated: data.isolate_documents.
        precision: train.precision.
        model_class: a class, its name in transformers, or None for what AutoModelForCausalLM takes.
        config: of the model; left as it is.

    Raises:
        TrainError: what was asked for cannot run here, or would let documents see each other.
    """
    is_auto = asked == "auto"
    # without a GPU there is nothing to say about kernels of GPUs
    flash = [] if on_cpu else [*FLASH]
    names = [*flash, "sdpa", "eager"] if is_auto else [asked]
    made_by = find_class(model_class, config)
    refused: list[str] = []
    for name in names:
        reason = why_not(name, on_cpu=on_cpu, precision=precision)
        reason = reason or _fault(made_by, config, name, on_cpu=on_cpu, isolated=isolated)
        if reason is None:
            words = "the fastest that works here" if is_auto else "asked for"
            tried = ["tried: it keeps documents apart"] if isolated else []
            return Chosen(name, "; ".join([words, *tried, *refused]))
        refused.append(f"{name} {reason}")
    raise TrainError(_refusal(asked, refused, isolated=isolated))


def why_not(name: str, *, on_cpu: bool, precision: str) -> str | None:
    """Why an implementation cannot run here, whatever the model; None if it can."""
    if name == "flex_attention" and on_cpu:
        return "has no backward pass on the CPU"
    if name not in FLASH:
        return None
    module, capability = FLASH[name]
    if on_cpu:
        return "needs a GPU"
    if precision == "fp32":
        return "computes in bf16 and fp16 alone, and train.precision is fp32"
    if importlib.util.find_spec(module) is None:
        return f"is not installed (no Python module {module})"
    if torch.cuda.get_device_capability() < capability:
        return f"needs a GPU of compute capability {capability[0]}.{capability[1]}"
    return None


def _fault(made_by: Any, config: Any, name: str, *, on_cpu: bool, isolated: bool) -> str | None:
    try:
        if isolated:
            try_isolation(made_by, config, name, on_cpu=on_cpu)
        else:
            refuse_unsupported(made_by, config, name)
    except NotIsolated as error:
        return f"does not work with {made_by.__name__}: {error}"
    return None


def _refusal(asked: str, refused: list[str], *, isolated: bool) -> str:
    reasons = "; ".join(refused)
    if not isolated:
        return f"model.attention: {reasons}; write auto, or leave it out"
    ways = "data.isolate_documents: false lets documents of a block see each other"
    other = "" if asked == "auto" else "write model.attention: auto for one that works, or "
    return (
        f"model.attention: documents of a block must not see each other; {reasons}; {other}{ways}"
    )
