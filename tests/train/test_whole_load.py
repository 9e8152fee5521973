"""What files lack never begins at random in silence: a model, and an adapter that goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from clusterlm.errors import TrainError, WeightsError
from tests.train.adapting import adapted, save, train_a_little

Change = Callable[[dict[str, Any]], Any]
UP = "model.layers.0.mlp.up_proj.weight"
Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def changed(folder: Path, to: Path, change: Change, file: str = "model.safetensors") -> Path:
    shutil.copytree(folder, to)
    tensors = load_file(to / file)
    change(tensors)
    save_file(tensors, to / file, metadata={"format": "pt"})
    return to


def trained_adapter(base: Path, tokenizer: Any, to: Path) -> Path:
    model = adapted(base, tokenizer, {"target_modules": ["q_proj"]})
    train_a_little(model)
    return save(model, to)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop(UP), f"do not hold {UP}, which would begin at random"),
        (lambda t: t.update({UP: t[UP][:3].clone()}), "other shapes than its config.json says"),
    ],
)
def test_a_model_that_lacks_weights_is_refused(
    change: Change, says: str, tmp_path: Path, tiny_model: Path, tokenizer: Any
) -> None:
    with pytest.raises(WeightsError, match=says):
        adapted(changed(tiny_model, tmp_path / "m", change), tokenizer, {})


def test_weights_that_nobody_needs_are_said(
    tmp_path: Path, tiny_model: Path, tokenizer: Any
) -> None:
    base = changed(tiny_model, tmp_path / "m", lambda t: t.update(other=t[UP].clone()))
    lines: list[str] = []
    adapted(base, tokenizer, {}, lines=lines)
    assert any("other in its files is no part of the model" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop(Q), "does not hold .*q_proj"),
        (
            lambda t: t.update({Q.replace(".0.", ".9."): t[Q].clone()}),
            "has no layer for .*layers.9",
        ),
    ],
)
def test_an_adapter_that_lacks_matrices_is_refused(
    change: Change, says: str, tmp_path: Path, tiny_model: Path, tokenizer: Any
) -> None:
    saved = trained_adapter(tiny_model, tokenizer, tmp_path / "a")
    broken = changed(saved, tmp_path / "b", change, "adapter_model.safetensors")
    with pytest.raises(TrainError, match=says):
        adapted(tiny_model, tokenizer, {"continue_from": str(broken)})
    assert adapted(tiny_model, tokenizer, {"continue_from": str(saved)})


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("adapter_model.safetensors", b"", "is cut off"),
        ("adapter_config.json", b"{}", "adapter_config.json is none of peft"),
        ("adapter_config.json", b"[]", "adapter_config.json is none of peft"),
    ],
)
def test_files_of_an_adapter_that_are_none_are_told(
    file: str, content: bytes, says: str, tmp_path: Path, tiny_model: Path, tokenizer: Any
) -> None:
    saved = trained_adapter(tiny_model, tokenizer, tmp_path / "a")
    (saved / file).write_bytes(content)
    with pytest.raises(TrainError, match=says):
        adapted(tiny_model, tokenizer, {"continue_from": str(saved)})
