"""What is not the trained model is not let into model/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clusterlm.errors import TrainError
from clusterlm.spec.model import Adapter
from clusterlm.train.adapter import add_adapter
from clusterlm.train.final import expected_shapes, verify_saved

LORA_B = "base_model.model.proj.lora_B.weight"


def save(folder: Path, **tensors: torch.Tensor) -> Path:
    save_file(
        {name.replace("__", "."): tensor for name, tensor in tensors.items()},
        folder / "model.safetensors",
    )
    return folder


def test_a_whole_model_passes(tmp_path: Path) -> None:
    verify_saved(save(tmp_path, a=torch.ones(2, 3)), {"a": (2, 3)})


def test_weights_renamed_while_saving_pass_when_their_sum_agrees(tmp_path: Path) -> None:
    verify_saved(save(tmp_path, merged=torch.ones(4, 3)), {"a": (2, 3), "b": (2, 3)})


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, "2 weights are missing, the first is a"),
        ({"a": torch.ones(2, 3)}, "1 weights are missing, the first is b"),
        ({"a": torch.ones(0), "b": torch.ones(3)}, "a is empty"),
        ({"a": torch.ones(3, 2), "b": torch.ones(3)}, r"a is \(3, 2\), not \(2, 3\)"),
    ],
)
def test_what_is_lost_is_named(tmp_path: Path, tensors: Any, words: str) -> None:
    with pytest.raises(TrainError, match=words):
        verify_saved(save(tmp_path, **tensors), {"a": (2, 3), "b": (3,)})


def test_an_adapter_that_was_never_trained_is_named(tmp_path: Path) -> None:
    save_file({LORA_B: torch.zeros(2, 2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(TrainError, match="every lora_B is zero"):
        verify_saved(tmp_path, {LORA_B: (2, 2)})


def test_split_weights_count_with_their_whole_shape() -> None:
    model = nn.Linear(3, 2)
    model.weight.ds_shape = torch.Size([2, 3])  # type: ignore[assignment]
    model.weight.data = torch.empty(0)
    assert expected_shapes(model) == {"weight": (2, 3), "bias": (2,)}


def test_an_adapter_is_expected_under_the_names_it_is_saved_with(
    tmp_path: Path, tiny_model: Path
) -> None:
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapter = Adapter(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    model = add_adapter(base, adapter, checkpointed=False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.ones_(parameter)
    model.save_pretrained(tmp_path)
    expected = expected_shapes(model)
    assert expected["base_model.model.lm_head.weight"] == (400, 32)
    assert len(expected) == 5
    verify_saved(tmp_path, expected)
