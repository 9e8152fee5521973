"""Old names are read where they mean the same, with a note; else they are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clusterlm.cli import app
from clusterlm.errors import SpecError
from clusterlm.spec.old_names import NO_EFFECT, RENAMED
from clusterlm.spec.train import Train
from clusterlm.spec.training_arguments import FREE
from tests.spec.conftest import Load, Refuse

MEANINGS: list[tuple[dict[str, Any], str, Any]] = [
    ({"train.gradient_accumulation_steps": 4}, "train.gradient_accumulation", 4),
    ({"train.per_device_train_batch_size": 2}, "train.micro_batch_size", 2),
    ({"train.num_train_epochs": 3}, "train.epochs", 3.0),
    ({"train.lr_scheduler_type": "linear"}, "train.lr_scheduler", "linear"),
    ({"train.warmup_ratio": 0.03}, "train.warmup", 0.03),
    ({"train.warmup_steps": 100, "train.warmup_ratio": 0}, "train.warmup", 100.0),
    ({"train.fp16": True}, "train.precision", "fp16"),
    ({"train.bf16": True, "train.fp16": False}, "train.precision", "bf16"),
    ({"train.bf16": False}, "train.precision", "fp32"),
    ({"train.bf16": "yes", "train.precision": "bf16"}, "train.precision", "bf16"),
    ({"train.gradient_checkpointing": True}, "train.activation_checkpointing", True),
    ({"train.save_total_limit": 1}, "train.keep_checkpoints", 2),
    ({"train.save_total_limit": 8}, "train.keep_checkpoints", 8),
    ({"train.save_step": 10000}, "train.save_steps", 10000),
    ({"train.torch_compile": True}, "train.compile", True),
    ({"train.use_liger_kernel": False}, "train.liger", False),
    ({"train.max_steps": -1, "train.epochs": 2}, "train.max_steps", None),
    ({"train.evaluation_strategy": "no"}, "train.eval_steps", None),
    ({"train.optim": "adamw_hf"}, "train.optim", "adamw_torch"),
    ({"train.adafactor": True}, "train.optim", "adafactor"),
    ({"train.fsdp": "full_shard auto_wrap"}, "train.strategy", "fsdp"),
    ({"train.fsdp": "full_shard auto_wrap"}, "train.fsdp.shard", "full"),
    ({"train.fsdp": ["shard_grad_op", "offload"]}, "train.fsdp.offload", True),
    ({"train.fsdp": ""}, "train.strategy", "ddp"),
    (
        {
            "train.fsdp": "full_shard auto_wrap",
            "train.fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer",
        },
        "train.fsdp.wrap",
        ["LlamaDecoderLayer"],
    ),
    (
        {
            "train.fsdp": True,
            "train.fsdp_config": {
                "fsdp_transformer_layer_cls_to_wrap": ["A"],
                "use_orig_params": True,
            },
        },
        "train.fsdp.wrap",
        ["A"],
    ),
    ({"train.torch_dtype": "torch.bfloat16"}, "model.dtype", "bfloat16"),
    ({"model.torch_dtype": "float32"}, "model.dtype", "float32"),
    ({"model.attn_implementation": "sdpa"}, "model.attention", "sdpa"),
    ({"model.load_in_8bit": False}, "model.quantization", None),
    (
        {"train.tokenizer": "owner/name", "data.tokenizer": {}},
        "data.tokenizer.name",
        "owner/name",
    ),
]
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"train.bf16": True, "train.precision": "fp32"}, "train.bf16", "train.precision says"),
    ({"train.bf16": True, "train.fp16": True}, "train.fp16", "train.bf16 says"),
    ({"train.warmup": 0.2, "train.warmup_ratio": 0.1}, "train.warmup_ratio", "train.warmup says"),
    (
        {"train.warmup_steps": 9, "train.warmup_ratio": 0.1},
        "train.warmup_steps",
        "train.warmup_ratio says 0.1",
    ),
    ({"train.warmup_ratio": 3}, "train.warmup_ratio", "below 1"),
    ({"train.warmup_ratio": -0.1}, "train.warmup_ratio", "at least 0"),
    ({"train.evaluation_strategy": "epoch"}, "train.evaluation_strategy", "eval_steps: N"),
    (
        {"train.eval_strategy": "no", "data.validation": {"fraction": 0.1}},
        "train.eval_strategy",
        "data.validation",
    ),
    ({"train.save_strategy": "epoch"}, "train.save_strategy", "write save_steps"),
    ({"train.fsdp": "hybrid_shard"}, "train.fsdp", "accepted: full_shard"),
    (
        {"train.fsdp": "full_shard", "train.strategy": "ddp"},
        "train.fsdp",
        "train.strategy says",
    ),
    ({"train.fsdp_config": {"xla": True}}, "train.fsdp_config", "xla"),
    ({"train.no_cuda": True}, "train.no_cuda", "gpus_per_node"),
    ({"train.load_best_model_at_end": True}, "train.load_best_model_at_end", "newest"),
    ({"train.torch_dtype": "float16"}, "train.torch_dtype", "float32, bfloat16"),
    ({"train.fp16": "perhaps"}, "train.fp16", "neither true nor false"),
    ({"train.save_total_limit": None}, "train.save_total_limit", "keep_checkpoints"),
]


@pytest.mark.parametrize(("changes", "place", "value"), MEANINGS, ids=lambda one: str(one)[:60])
def test_an_old_name_means_what_it_meant(
    load: Load, changes: dict[str, Any], place: str, value: object
) -> None:
    # fp16 wants a GPU, and fsdp somebody to share with
    loaded = load(changes | {"resources.gpus_per_node": 2})
    found: Any = loaded.job
    for key in place.split("."):
        found = found.get(key) if isinstance(found, dict) else getattr(found, key)
        if place == "train.optim":
            found = loaded.job.train.further_arguments["optim"]
            break
    assert found == value
    assert any(note.startswith(next(iter(changes)).rpartition(".")[0]) for note in loaded.notes)


@pytest.mark.parametrize(("changes", "place", "words"), REFUSED, ids=lambda one: str(one)[:60])
def test_what_means_something_else_is_refused_by_its_own_name(
    refuse: Refuse, changes: dict[str, Any], place: str, words: str
) -> None:
    found = refuse(changes)
    assert words in found[place]


def test_names_that_change_nothing_are_left_out_with_a_note(load: Load) -> None:
    changes = {
        "train.overwrite_output_dir": True,
        "train.do_train": "yes",
        "train.do_eval": True,
        "train.logging_strategy": "steps",
        "train.resume_from_checkpoint": None,
    }
    notes = "\n".join(load(changes).notes)
    assert all(f"{name} left out: " in notes for name in changes)


def test_a_moved_value_has_the_line_where_it_was_written(refuse: Refuse) -> None:
    text = "name: x\ntrain:\n  epochs: 1\n  per_device_train_batch_size: 0\n"
    assert "at least 1" in refuse(text)["train.per_device_train_batch_size"]


def test_what_is_set_on_the_command_line_is_read_the_same_way(load: Load, refuse: Refuse) -> None:
    assert load({}, "train.num_train_epochs=2").job.train.epochs == 2
    found = refuse({"train.epochs": 3}, "train.num_train_epochs=2")
    assert "train.epochs says 3" in found["--set train.num_train_epochs"]


def test_every_new_name_is_a_key(load: Load) -> None:
    assert set(RENAMED.values()) <= {*Train.model_fields, *FREE}
    assert not set(NO_EFFECT) & set(Train.model_fields)


def test_the_notes_are_told_beside_the_mistakes(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("train: {save_total_limit: 5, learning_rat: 1}\n")
    result = CliRunner().invoke(app, ["check", str(job)])
    assert isinstance(result.exception, SpecError)
    assert "note: train.save_total_limit read as train.keep_checkpoints" in result.stderr
