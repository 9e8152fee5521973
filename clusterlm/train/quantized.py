"""Frozen weights in 4 or 8 bits under an adapter (QLoRA, https://arxiv.org/abs/2305.14314).

bitsandbytes keeps the weights of linear layers as nf4, fp4 or int8 and computes in the training's
precision. Where weights are split over ranks (ZeRO-3, FSDP) the 4-bit ones are stored as if they
were numbers of the type that everything else has: what is split must have one type.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from peft import prepare_model_for_kbit_training
from transformers import BitsAndBytesConfig

from clusterlm.errors import TrainError

INT8 = "int8"


def refuse_without_gpu(quantization: str, *, on_cpu: bool) -> None:
    """Say what is missing before weights are read."""
    if on_cpu:
        raise TrainError(
            f"model.quantization: {quantization} needs a GPU, and this training runs on the CPU; "
            "take the key out, or set resources.gpus_per_node"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise TrainError(
            f"model.quantization: {quantization} needs the package bitsandbytes, which is not "
            "installed here; `pip install bitsandbytes`, or image.pip: [bitsandbytes]"
        )


def bits_and_bytes(quantization: str, *, precision: str, splits_weights: bool) -> Any:
    """The configuration that transformers loads a model with.

    Args:
        quantization: nf4, fp4 or int8.
        precision: train.precision, which the layers compute in.
        splits_weights: ZeRO-3 or FSDP splits them over the ranks.
    """
    if quantization == INT8:
        return BitsAndBytesConfig(load_in_8bit=True)
    computes_in = compute_dtype(precision)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computes_in,
        bnb_4bit_quant_storage=computes_in if splits_weights else torch.uint8,
    )


def compute_dtype(precision: str) -> torch.dtype:
    """The type that a precision computes in."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)


def prepare_quantized(model: Any, *, splits_weights: bool) -> Any:
    """Freeze a quantized model and keep its norms and embeddings in float32, as QLoRA does."""
    if splits_weights:
        # another type beside the packed weights could not be split with them
        model.requires_grad_(False)
        return model
    # the Trainer switches activation checkpointing on, the same way for every mode
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
