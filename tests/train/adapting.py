"""Models with adapters for tests: made as the trainer makes them, trained a little, saved by it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from clusterlm.spec.job import Job
from clusterlm.train.adapter_start import stand_on_original_base
from clusterlm.train.final import expected_shapes, verify_saved
from clusterlm.train.model import make_model

IDS = torch.arange(1, 33).reshape(2, 16)


def adapted(
    base: Path,
    tokenizer: Any,
    adapter: dict[str, Any],
    *,
    lines: list[str] | None = None,
    **more: Any,
) -> Any:
    """The model of a job with this adapter; `lines` gets what is said."""
    train = {"mode": "adapter", "precision": "fp32"} | more.pop("train", {})
    model = {"name": str(base), "adapter": adapter} | more
    job = Job.model_validate({"name": "t", "model": model, "train": train})
    say: Callable[[str], None] = (lines if lines is not None else []).append
    return make_model(job, block_size=32, tokenizer=tokenizer, say=say, sample=batches)


def batches() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 400, (4, 2, 32), generator=generator)
    return [{"input_ids": some, "labels": some} for some in ids]


def train_a_little(model: Any, steps: int = 3) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(steps):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def logits(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def save(model: Any, folder: Path) -> Path:
    """As `save_final` does."""
    model.save_pretrained(folder)
    expected = expected_shapes(model)
    verify_saved(folder, expected)
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as tensors:
        assert set(expected) <= set(tensors.keys())
    stand_on_original_base(folder, model)
    return folder


def reopened(base: Path, folder: Path) -> Any:
    """What somebody gets who loads the base and the saved adapter."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 under a name that is to go
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return PeftModel.from_pretrained(model, str(folder))
