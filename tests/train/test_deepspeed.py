"""The JSON for each stage; and real DeepSpeed on two ranks: train, checkpoint, resume, save."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from clusterlm.errors import TrainError
from clusterlm.spec.job import Job
from clusterlm.spec.train import DeepSpeed
from clusterlm.train.deepspeed import (
    GATHER_KEY,
    build_json,
    choose_stage,
    complete_own_json,
    read_own_json,
    zero_stage,
)
from clusterlm.train.rank import Rank
from tests.pile_json import PILE
from tests.train.forked import Forks
from tests.train.launching import Run

"""What people copy: stage 3 with everything on the host, fp16, and buckets of 1e9."""

SHORT = {"strategy": "deepspeed", "max_steps": 4, "save_steps": 2, "micro_batch_size": 2}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_json_splits_what_the_stage_says(stage: int) -> None:
    config = build_json(DeepSpeed(), stage=stage, precision="bf16", on_cpu=True)
    assert zero_stage(config) == stage
    assert config["bf16"] == {"enabled": True}
    assert config["zero_force_ds_cpu_optimizer"] is False
    gathers = config["zero_optimization"].get("stage3_gather_16bit_weights_on_model_save")
    assert gathers == (True if stage == 3 else None)


def test_offload_on_a_gpu_brings_the_optimizer_that_can_step_on_the_host() -> None:
    asked = DeepSpeed(offload_optimizer=True, offload_parameters=True)
    config = build_json(asked, stage=3, precision="fp32", on_cpu=False, gpus_per_node=8)
    assert "zero_hpz_partition_size" not in config["zero_optimization"]
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
    ],
)
def test_own_json_that_cannot_work_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "ds.json"
    path.write_text(text)
    with pytest.raises(TrainError, match=words):
        read_own_json(path)


def test_stage_3_over_several_nodes_keeps_a_copy_of_the_weights_on_each() -> None:
    for stage, size in ((2, None), (3, 8)):
        config = build_json(
            DeepSpeed(), stage=stage, precision="bf16", on_cpu=False, gpus_per_node=8
        )
        assert config["zero_optimization"].get("zero_hpz_partition_size") == size


def test_fp16_scales_the_loss_by_what_it_finds() -> None:
    config = build_json(DeepSpeed(), stage=2, precision="fp16", on_cpu=False)
    assert config["fp16"] == {"enabled": True, "loss_scale": 0}
    assert config["bf16"] == {"enabled": False}


def place(folder: Path, **more: Any) -> Rank:
    rank = Rank.read(folder, {"CLUSTERLM_CACHE": str(folder), "WORLD_SIZE": "8"})
    return replace(rank, **more)


def test_auto_is_the_lowest_stage_that_fits(tmp_path: Path) -> None:
    config = {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 11008}
    eight_billion = {"from_scratch": {"class": "LlamaForCausalLM", "config": config}}
    data: dict[str, Any] = {"tokenizer": {"train": {"vocab_size": 32000}}, "block_size": 2048}
    data["sources"] = [{"kind": "text", "path": "corpus"}]
    job = Job.model_validate(
        {
            "name": "t",
            "model": eight_billion,
            "data": data,
            "train": {"strategy": "deepspeed", "activation_checkpointing": True},
            "resources": {"gpus_per_node": 8},
        }
    )
    stages = [
        choose_stage(DeepSpeed(), job, place(tmp_path), gpu_bytes=gib * 2**30)
        for gib in (1000, 80, 40, 1)
    ]
    assert stages == sorted(stages)
    assert (stages[0], stages[-1]) == (1, 3)


def test_auto_without_a_gpu_or_with_a_checkpoint(tmp_path: Path) -> None:
    job, here = Job(name="t"), place(tmp_path)
    assert choose_stage(DeepSpeed(), job, here, gpu_bytes=None) == 2
    assert choose_stage(DeepSpeed(offload_parameters=True), job, here, gpu_bytes=None) == 3
    assert choose_stage(DeepSpeed(stage=1), job, here, gpu_bytes=None) == 1
    (tmp_path / "deepspeed.json").write_text('{"zero_optimization": {"stage": 3}}')
    going_on = place(tmp_path, resume_from=tmp_path)
    assert choose_stage(DeepSpeed(), job, going_on, gpu_bytes=2**40) == 3


def test_own_json_gets_what_it_needs_to_run_and_to_be_saved() -> None:
    config, completed = complete_own_json(PILE, on_cpu=False)
    assert config["zero_optimization"][GATHER_KEY] is True
    assert config["optimizer"]["type"] == "AdamW"
    assert len(completed) == 2
    rest = {key: value for key, value in config.items() if key in PILE}
    rest["zero_optimization"] = dict(rest["zero_optimization"])
    del rest["zero_optimization"][GATHER_KEY]
    assert rest == PILE
    with pytest.raises(TrainError, match="no CPU trains in fp16"):
        complete_own_json(PILE, on_cpu=True)


def test_own_json_trains(make_run: Callable[..., Run], forks: Forks, tmp_path: Path) -> None:
    own = PILE | {"fp16": {"enabled": False}}
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(own))
    run = make_run(train=SHORT | {"deepspeed": str(path), "max_steps": 2})
    assert run.train_forked(forks) == [0, 0], run.output
    assert f"ds.json: zero_optimization.{GATHER_KEY} is set for this run" in run.output
    assert (run.root / "model" / "model.safetensors").is_file()


def test_stage_0_trains_and_resumes(make_run: Callable[..., Run], forks: Forks) -> None:
    # stages 1 to 3: test_resume_matrix.py
    run = make_run(ranks=1, train=SHORT | {"deepspeed": {"stage": 0}})
    assert run.train_forked(forks) == [0], run.output
    straight = run.losses()
    assert run.train_forked(forks, attempt=2, resume=str(run.checkpoint(2))) == [0], run.output
    assert run.losses() == straight
    assert zero_stage(json.loads((run.root / "deepspeed.json").read_text())) == 0


def test_lora_under_stage_3_resumes_and_saves_an_adapter_that_is_not_empty(
    make_run: Callable[..., Run], forks: Forks, tiny_model: Path
) -> None:
    adapter = {"r": 4, "target_modules": ["q_proj", "v_proj"], "modules_to_save": ["lm_head"]}
    more = {"mode": "adapter", "precision": "bf16", "activation_checkpointing": True}
    run = make_run(
        model={"name": str(tiny_model), "adapter": adapter},
        train=SHORT | more | {"deepspeed": {"stage": 3}},
    )
    assert run.train_forked(forks) == [0, 0], run.output
    straight = run.losses()
    assert run.train_forked(forks, attempt=2, resume=str(run.checkpoint(2))) == [0, 0], run.output
    assert run.losses() == straight

    saved = load_file(run.root / "model" / "adapter_model.safetensors")
    halves = [name for name in saved if ".lora_" in name]
    # 2 layers x 2 targets x A and B
    assert len(halves) == 8
    assert all(saved[name].any() for name in saved)
    assert saved["base_model.model.lm_head.weight"].shape == (400, 32)
