"""Rows of test_rules: what is trained and how."""

from __future__ import annotations

from tests.spec.conftest import Row

SLURM_4 = {"cluster": "slurm", "resources": {"nodes": 4, "gpus_per_node": 8, "spares": 1}}
ZERO = {"train.strategy": "deepspeed"}

TRAINING: list[Row] = [
    (
        "data_and_model_are_given",
        {"data": ..., "model": ..., "train.command": ["true"]},
        {"data": ...},
        "data",
        "is missing",
    ),
    ("data_and_model_are_given", {}, {"model": ...}, "model", "is missing"),
    ("model_has_one_origin", {"model": {"name": "a/b"}}, {"model": {}}, "model", "write name"),
    ("model_has_one_origin", {}, {"model.name": "a/b"}, "model", "both"),
    ("model_has_one_origin", {}, {"model.revision": "v1"}, "model.revision", "belongs to a name"),
    (
        "adapter_goes_with_its_mode",
        {"train.mode": "adapter", "model.adapter": {"r": 8}},
        {"train.mode": "adapter"},
        "train.mode",
        "add model.adapter",
    ),
    (
        "adapter_goes_with_its_mode",
        {"model.adapter": {"r": 8}, "train.command": ["true"]},
        {"model.adapter": {"r": 8}},
        "model.adapter",
        "train.mode: adapter",
    ),
    (
        "adapter_has_targets",
        {"train.mode": "adapter", "model.adapter": {"target_modules": ["q_proj"]}},
        {"train.mode": "adapter", "model.adapter": {"target_modules": []}},
        "model.adapter.target_modules",
        "all-linear",
    ),
    (
        "deepspeed_goes_with_its_strategy",
        ZERO | {"train.deepspeed": {"stage": 1}},
        {"train.deepspeed": {"stage": 1}},
        "train.deepspeed",
        "strategy: deepspeed",
    ),
    (
        "offload_goes_with_its_stage",
        ZERO | {"train.deepspeed": {"stage": 3, "offload_parameters": True}},
        ZERO | {"train.deepspeed": {"stage": 2, "offload_parameters": True}},
        "train.deepspeed.offload_parameters",
        "the stage is 2",
    ),
    (
        "offload_goes_with_its_stage",
        ZERO | {"train.deepspeed": {"stage": 1, "offload_optimizer": True}},
        ZERO | {"train.deepspeed": {"stage": 0, "offload_optimizer": True}},
        "train.deepspeed.offload_optimizer",
        "the stage is 0",
    ),
    (
        "global_batch_adds_up",
        SLURM_4 | {"train.global_batch_size": 128, "train.micro_batch_size": 2},
        SLURM_4 | {"train.global_batch_size": 100, "train.micro_batch_size": 2},
        "train.global_batch_size",
        "micro_batch_size 2 x ranks 32 = 64; the nearest that work: 64 or 128",
    ),
    (
        "global_batch_adds_up",
        {"train": {"global_batch_size": 8, "gradient_accumulation": 4, "micro_batch_size": 2}},
        {"train": {"global_batch_size": 9, "gradient_accumulation": 4, "micro_batch_size": 2}},
        "train.global_batch_size",
        "2 x gradient_accumulation 4 x ranks 1 = 8; write 8",
    ),
    (
        "global_batch_adds_up",
        {},
        {"train": {"global_batch_size": 3, "micro_batch_size": 4}},
        "train.global_batch_size",
        "the nearest that work: 4",
    ),
    (
        "evaluation_has_data",
        {"train.eval_steps": 5, "data.validation.fraction": 0.1},
        {"train.eval_steps": 5},
        "train.eval_steps",
        "data.validation",
    ),
    (
        "evaluation_has_data",
        {
            "train.eval_steps": 5,
            "data.sources": [{"kind": "text", "path": "corpus", "validation": 0.1}],
        },
        {
            "train.eval_steps": 5,
            "data.sources": [{"kind": "text", "path": "corpus", "validation": 0.0}],
        },
        "train.eval_steps",
        "data.validation",
    ),
    (
        "names_are_known",
        {"train.lr_scheduler": "linear"},
        {"train.lr_scheduler": "cosin"},
        "train.lr_scheduler",
        "`cosine`",
    ),
    (
        "names_are_known",
        {"train.optim": "adamw_torch"},
        {"train.optim": "adamw_torc"},
        "train.optim",
        "`adamw_torch`",
    ),
    (
        "further_arguments_are_known",
        {"train.dataloader_num_workers": 2},
        {"train.dataloader_num_worker": 2},
        "train.dataloader_num_worker",
        "`dataloader_num_workers`",
    ),
    (
        "further_arguments_are_known",
        {"train.adam_beta2": 0.95},
        {"train.adam_beta2": "high"},
        "train.adam_beta2",
        "a number",
    ),
    ("further_arguments_are_known", {}, {"train.output_dir": "x"}, "train.output_dir", "run dir"),
    ("further_arguments_are_known", {}, {"train.no_cuda": True}, "train.no_cuda", "gpus_per_node"),
    ("further_arguments_are_known", {}, {"train.zzz": 1}, "train.zzz", "no key of train"),
    (
        "vocabulary_comes_from_the_tokenizer",
        {"model.from_scratch.config.vocab_size": 300},
        {"model.from_scratch.config.vocab_size": 301},
        "model.from_scratch.config.vocab_size",
        "is 300",
    ),
    (
        "heads_divide",
        {"model.from_scratch.config.num_attention_heads": 8},
        {"model.from_scratch.config.num_attention_heads": 5},
        "model.from_scratch.config.num_attention_heads",
        "does not divide hidden_size",
    ),
    (
        "heads_divide",
        {"model.from_scratch.config.num_key_value_heads": 2},
        {"model.from_scratch.config.num_key_value_heads": 3},
        "model.from_scratch.config.num_key_value_heads",
        "does not divide num_attention_heads",
    ),
]
