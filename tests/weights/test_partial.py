"""Weights that files lack, or NaN in them: chat, eval and merge refuse, in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from clusterlm.errors import ClusterLMError
from clusterlm.train.loaded import load_target
from clusterlm.train.target import Target
from clusterlm.weights.merge import merge
from clusterlm.weights.merge_job import MergeJob
from tests.weights.kinds import KINDS, make_adapter, make_base

pytestmark = pytest.mark.filterwarnings("ignore")
Change = Callable[[dict[str, torch.Tensor]], Any]
BASE = "base_model.model."
A = f"{BASE}model.layers.0.self_attn.q_proj.lora_A.weight"
B = f"{BASE}model.layers.0.self_attn.q_proj.lora_B.weight"
HEAD = f"{BASE}lm_head.weight"
NORM = "model.layers.1.input_layernorm.weight"


def change_file(path: Path, change: Change) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def drop(*names: str) -> Change:
    return lambda tensors: [tensors.pop(name) for name in names]


def put(name: str, value: float) -> Change:
    return lambda tensors: tensors[name].view(-1)[3:4].fill_(value)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    base = tmp_path / "base"
    settings = dict(KINDS["modules_to_save"][1])
    return base, make_adapter(tmp_path / "adapter", base, make_base(base, "llama"), settings)


def every_use(base: Path, adapter: Path, says: str) -> None:
    """Load it as chat and eval do; merge it, compared and not."""
    with pytest.raises(ClusterLMError, match=says):
        load_target(Target("it", str(base), str(base), adapter))
    to = adapter.with_name("merged")
    for compares in (True, False):
        job = MergeJob(str(base), [adapter], str(base), compares=compares)
        with pytest.raises(ClusterLMError, match=says):
            merge(job, to, say=lambda line: None)
        assert not list(to.parent.glob("*merg*"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop(A), "does not hold .*q_proj.lora_A|lacks lora_A or lora_B"),
        (drop(A, B), "does not hold .*layers.0.*q_proj"),
        (drop(HEAD), "does not hold .*lm_head"),
        (put(B, float("nan")), "NaN"),
        (put(HEAD, float("inf")), "infinity"),
        (lambda t: t.update({f"{BASE}score.weight": torch.ones(3)}), "no .*score"),
        (lambda t: t.update({A.replace(".0.", ".7."): t[A].clone()}), "no .*layers.7|lacks lora"),
    ],
)
def test_an_adapter_that_is_not_whole(pair: Any, change: Change, says: str) -> None:
    base, adapter = pair
    change_file(adapter / "adapter_model.safetensors", change)
    every_use(base, adapter, says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop(NORM), f"do not hold {NORM}"),
        (lambda t: t.update({NORM: torch.ones(5)}), "other shapes than its config.json says"),
    ],
)
def test_a_base_that_is_not_whole(pair: Any, change: Change, says: str) -> None:
    base, adapter = pair
    change_file(base / "model.safetensors", change)
    every_use(base, adapter, says)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_whole_is_taken(kind: str, tmp_path: Path) -> None:
    name, settings = KINDS[kind]
    base = tmp_path / "base"
    adapter = make_adapter(tmp_path / "adapter", base, make_base(base, name), dict(settings))
    job = MergeJob(str(base), [adapter], str(base), compares=False)
    assert merge(job, tmp_path / "merged", say=lambda line: None).num_changed


def test_numbers_that_a_type_cannot_hold_are_not_written(pair: Any) -> None:
    base, adapter = pair
    change_file(base / "model.safetensors", put("model.layers.0.mlp.up_proj.weight", 1e6))
    for compares in (True, False):
        job = MergeJob(str(base), [adapter], str(base), dtype="float16", compares=compares)
        with pytest.raises(ClusterLMError, match="up_proj.*float16"):
            merge(job, adapter.with_name("merged"), say=lambda line: None)
