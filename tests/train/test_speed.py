from __future__ import annotations

import dataclasses
import sys
import types
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from clusterlm.errors import TrainError
from clusterlm.spec.job import Job
from clusterlm.spec.train import Checkpointing
from clusterlm.train import speed
from clusterlm.train.speed import explain_speed, layer_choice, set_allocator, speed_fields

FIELDS = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}


def make_job(made_by: str = "LlamaForCausalLM", **train: Any) -> Job:
    model = {"from_scratch": {"class": made_by, "config": {}}}
    data = {
        "tokenizer": {"name": "/t"},
        "block_size": 32,
        "sources": [{"kind": "text", "path": "/corpus"}],
    }
    values = {"name": "speed", "cluster": "local", "data": data, "model": model, "train": train}
    return Job.model_validate(values)


@pytest.fixture
def with_liger(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if liger-kernel were installed, and knew Llama alone."""
    known = types.ModuleType("liger_kernel.transformers.monkey_patch")
    known.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": None}  # type: ignore[attr-defined]
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, known.__name__, known)
    monkeypatch.setattr(speed, "_installed", lambda module: True)


@pytest.mark.usefixtures("with_liger")
def test_liger_is_on_where_there_is_a_gpu_and_it_knows_the_model() -> None:
    assert speed_fields(make_job(), FIELDS, on_cpu=False)["use_liger_kernel"] is True
    assert speed_fields(make_job(), FIELDS, on_cpu=True)["use_liger_kernel"] is False
    assert speed_fields(make_job(liger=False), FIELDS, on_cpu=False)["use_liger_kernel"] is False
    other = make_job("GPT2LMHeadModel")
    assert speed_fields(other, FIELDS, on_cpu=False)["use_liger_kernel"] is False
    other = make_job("GPT2LMHeadModel", liger=True)
    with pytest.raises(TrainError, match="does not know this model"):
        speed_fields(other, FIELDS, on_cpu=False)


def test_liger_that_is_asked_for_and_not_there_is_refused() -> None:
    for on_cpu, words in ((True, "GPUs alone"), (False, "not installed")):
        with pytest.raises(TrainError, match=words):
            speed_fields(make_job(liger=True), FIELDS, on_cpu=on_cpu)
    assert speed_fields(make_job(), FIELDS, on_cpu=False)["use_liger_kernel"] is False


def test_a_gpu_gets_a_loader_that_reads_ahead_and_the_cpu_keeps_its_cores() -> None:
    on_gpu = speed_fields(make_job(), FIELDS, on_cpu=False)
    assert on_gpu["dataloader_num_workers"] == 2
    assert on_gpu["dataloader_pin_memory"] is True
    assert speed_fields(make_job(), FIELDS, on_cpu=True)["dataloader_num_workers"] == 0
    # torch refuses to prefetch without processes
    none = speed_fields(make_job(dataloader_num_workers=0), FIELDS, on_cpu=False)
    assert "dataloader_prefetch_factor" not in none


@pytest.mark.parametrize("on_cpu", [True, False])
def test_arguments_are_those_of_the_installed_transformers(on_cpu: bool) -> None:
    found = speed_fields(make_job(compile=True), FIELDS, on_cpu=on_cpu)
    assert found["torch_compile"] is True
    assert set(found) <= FIELDS


def test_every_part_is_told_with_its_reason() -> None:
    parts = {name: (on, why) for name, on, why in explain_speed(make_job(), on_cpu=True)}
    assert parts["fused optimizer"] == (True, "optim is adamw_torch_fused")
    assert parts["Liger kernels"] == (False, "no GPU")
    assert parts["torch.compile"] == (False, "compile: false")
    chosen = explain_speed(
        make_job(optim="adafactor", activation_checkpointing={"every_n_layers": 3}), on_cpu=False
    )
    line = speed.speed_line(chosen)
    assert "fused optimizer off (optim is adafactor)" in line
    assert "activations kept off (one layer of 3" in line
    assert "loader processes on (2 read ahead" in line


def test_layers_are_chosen_where_transformers_can(monkeypatch: pytest.MonkeyPatch) -> None:
    assert layer_choice(True) == layer_choice(Checkpointing()) == {}
    monkeypatch.setattr(speed, "_transformers_chooses_layers", lambda: True)
    asked = Checkpointing(every_n_layers=2, offload=True)
    assert layer_choice(asked) == {"every_n_layers": 2, "offload": True}
    monkeypatch.setattr(speed, "_transformers_chooses_layers", lambda: False)
    assert layer_choice(Checkpointing(every_n_layers=1)) == {}
    with pytest.raises(TrainError, match="all layers or none"):
        layer_choice(asked)


def test_the_allocator_is_that_of_the_user_where_there_is_one() -> None:
    mine: dict[str, str] = {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}
    set_allocator(mine, on_cpu=False)
    assert mine == {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}
    empty: dict[str, str] = {}
    set_allocator(empty, on_cpu=True)
    assert empty == {}
    set_allocator(empty, on_cpu=False)
    assert empty == {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}


def test_the_fused_optimizer_takes_the_steps_of_the_other() -> None:
    def trained(fused: bool) -> torch.Tensor:
        weights = torch.nn.Parameter(torch.linspace(-1, 1, 200))
        optimizer = torch.optim.AdamW([weights], lr=0.1, weight_decay=0.1, fused=fused)
        for step in range(20):
            weights.grad = torch.sin(torch.arange(200.0) + step)
            optimizer.step()
        return weights.detach()

    torch.testing.assert_close(trained(True), trained(False), atol=1e-6, rtol=1e-5)
