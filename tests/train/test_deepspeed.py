"""The JSON for each stage; and real DeepSpeed on two ranks: train, checkpoint, resume, save."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from clusterlm.errors import TrainError
from clusterlm.spec.train import DeepSpeed
from clusterlm.train.deepspeed import build_json, read_own_json, zero_stage
from tests.train.launching import Run

SHORT = {"strategy": "deepspeed", "max_steps": 4, "save_steps": 2, "micro_batch_size": 2}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_json_splits_what_the_stage_says(stage: int) -> None:
    config = build_json(DeepSpeed(stage=stage), precision="bf16", on_cpu=True)
    assert zero_stage(config) == stage
    assert config["bf16"] == {"enabled": True}
    assert config["zero_force_ds_cpu_optimizer"] is False
    gathers = config["zero_optimization"].get("stage3_gather_16bit_weights_on_model_save")
    assert gathers == (True if stage == 3 else None)


def test_offload_on_a_gpu_brings_the_optimizer_that_can_step_on_the_host() -> None:
    asked = DeepSpeed(stage=3, offload_optimizer=True, offload_parameters=True)
    config = build_json(asked, precision="fp32", on_cpu=False)
    assert config["optimizer"]["type"] == "AdamW"
    assert config["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert config["zero_optimization"]["offload_param"]["device"] == "cpu"
    assert "zero_force_ds_cpu_optimizer" not in config


def test_own_json_is_taken_as_it_is(tmp_path: Path) -> None:
    own = {"zero_optimization": {"stage": 2}, "steps_per_print": 7}
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(own))
    assert read_own_json(path) == own


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[]", "one JSON object"),
        ('{"zero_optimization": {"stage": 3}}', "could not be saved"),
    ],
)
def test_own_json_that_cannot_work_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "ds.json"
    path.write_text(text)
    with pytest.raises(TrainError, match=words):
        read_own_json(path)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_resumed_training_has_the_losses_of_a_straight_one(
    make_run: Callable[..., Run], stage: int
) -> None:
    run = make_run(ranks=2 if stage >= 2 else 1, train=SHORT | {"deepspeed": {"stage": stage}})
    assert set(run.train_to_end()) == {0}, run.output
    straight = run.losses()
    assert sorted(straight) == [1, 2, 3, 4]

    assert set(run.train_to_end(attempt=2, resume=str(run.checkpoint(2)))) == {0}, run.output
    assert run.losses() == straight
    assert zero_stage(json.loads((run.root / "deepspeed.json").read_text())) == stage


def test_lora_under_stage_3_resumes_and_saves_an_adapter_that_is_not_empty(
    make_run: Callable[..., Run], tiny_model: Path
) -> None:
    adapter = {"r": 4, "target_modules": ["q_proj", "v_proj"], "modules_to_save": ["lm_head"]}
    more = {"mode": "adapter", "precision": "bf16", "activation_checkpointing": True}
    run = make_run(
        model={"name": str(tiny_model), "adapter": adapter},
        train=SHORT | more | {"deepspeed": {"stage": 3}},
    )
    assert run.train_to_end() == [0, 0], run.output
    straight = run.losses()
    assert run.train_to_end(attempt=2, resume=str(run.checkpoint(2))) == [0, 0], run.output
    assert run.losses() == straight

    saved = load_file(run.root / "model" / "adapter_model.safetensors")
    halves = [name for name in saved if ".lora_" in name]
    # 2 layers x 2 targets x A and B
    assert len(halves) == 8
    assert all(saved[name].any() for name in saved)
    assert saved["base_model.model.lm_head.weight"].shape == (400, 32)
