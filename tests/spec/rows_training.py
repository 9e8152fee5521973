"""Rows of test_rules: what is trained and how."""

from __future__ import annotations

from tests.spec.conftest import Row

SLURM_4 = {"cluster": "slurm", "resources": {"nodes": 4, "gpus_per_node": 8, "spares": 1}}
ZERO = {"train.strategy": "deepspeed"}
GPUS = {"resources": {"gpus_per_node": 2}}
TWO = {"resources": {"processes_per_node": 2}}
BASE = {"model.name": "./model", "model.from_scratch": ...}
ADAPTER = BASE | {"train.mode": "adapter"}
HERE = {"model.name": "./llama", "model.from_scratch": ...}
BESIDE = HERE | {"train.mode": "adapter"}
SOME = HERE | {"train.mode": "partial"}
STAGE_3 = ZERO | {"train.deepspeed": {"stage": 3}}

TRAINING: list[Row] = [
    (
        "weights_are_whole",
        HERE,
        HERE | {"model.name": "./cut-off"},
        "model.name",
        "instead of",
    ),
    (
        "adapter_names_layers",
        BESIDE | {"model.adapter": {"target_modules": ["q_proj", "lm_head"]}},
        BESIDE | {"model.adapter": {"target_modules": ["qproj"]}},
        "model.adapter.target_modules",
        "did you mean `q_proj`?",
    ),
    (
        "adapter_names_layers",
        BESIDE | {"model.adapter": {"modules_to_save": ["norm", "layers"]}},
        BESIDE | {"model.adapter": {"target_modules": ["layers"]}},
        "model.adapter.target_modules",
        "no layer with a matrix is named",
    ),
    (
        "adapter_names_layers",
        BESIDE | {"model.adapter": {"rank_pattern": {"^model.layers.0.self_attn.q_proj": 2}}},
        BESIDE | {"model.adapter": {"rank_pattern": {"norm": 2}}},
        "model.adapter.rank_pattern",
        "is no layer that gets an adapter",
    ),
    (
        "trainable_names_parameters",
        SOME | {"train.trainable": ["*.layers.0.*", "lm_head.*"]},
        SOME | {"train.trainable": ["*.layers.7.*"]},
        "train.trainable",
        "names no parameter",
    ),
    (
        "schedulers_have_what_they_need",
        {
            "train.lr_scheduler": "warmup_stable_decay",
            "train.lr_scheduler_kwargs": {"num_decay_steps": 10},
        },
        {"train.lr_scheduler": "warmup_stable_decay"},
        "train.lr_scheduler",
        "num_decay_steps",
    ),
    (
        "further_arguments_are_known",
        {"train.adam_beta1": 0.9},
        {"train.adam_beta1": 2.0},
        "train.adam_beta1",
        "out of range",
    ),
    (
        "patterns_are_positive",
        ADAPTER | {"model.adapter": {"rank_pattern": {"q_proj": 4}}},
        ADAPTER | {"model.adapter": {"rank_pattern": {"(": 4}}},
        "model.adapter.rank_pattern",
        "regular expression",
    ),
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
        ADAPTER | {"model.adapter": {"r": 8}},
        {"train.mode": "adapter"},
        "train.mode",
        "add model.adapter",
    ),
    (
        "adapter_goes_with_its_mode",
        {"model.adapter": {"r": 8}, "train.command": ["true"]},
        BASE | {"model.adapter": {"r": 8}},
        "model.adapter",
        "mode is full; write train.mode: adapter",
    ),
    (
        "adapter_goes_with_its_mode",
        BASE | {"train.mode": "embeddings"},
        BASE | {"model.adapter": {"r": 8}, "train.mode": "embeddings"},
        "model.adapter",
        "mode is embeddings",
    ),
    (
        "adapter_has_a_trained_base",
        ADAPTER | {"model.adapter": {"r": 8}},
        {"train.mode": "adapter", "model.adapter": {"r": 8}},
        "model.from_scratch",
        "write model.name, or train the new model",
    ),
    (
        "trainable_goes_with_its_mode",
        {"train": {"mode": "partial", "trainable": ["*.layers.1.*", "lm_head.*"]}},
        {"train": {"mode": "partial"}},
        "train.trainable",
        "is empty",
    ),
    (
        "trainable_goes_with_its_mode",
        {"train": {"mode": "embeddings"}},
        {"train": {"trainable": ["lm_head.*"]}},
        "train.trainable",
        "write mode: partial",
    ),
    (
        "adapter_has_targets",
        ADAPTER | {"model.adapter": {"target_modules": ["q_proj"]}},
        ADAPTER | {"model.adapter": {"target_modules": []}},
        "model.adapter.target_modules",
        "all-linear",
    ),
    (
        "adapter_has_targets",
        ADAPTER | {"model.adapter": {"trainable_tokens": [7]}},
        ADAPTER | {"model.adapter": {"trainable_tokens": []}},
        "model.adapter.trainable_tokens",
        "write new",
    ),
    (
        "patterns_are_positive",
        ADAPTER | {"model.adapter": {"rank_pattern": {"q_proj": 4}, "alpha_pattern": "ranks.json"}},
        ADAPTER | {"model.adapter": {"rank_pattern": {"q_proj": 0}}},
        "model.adapter.rank_pattern",
        '"q_proj" has 0',
    ),
    (
        "patterns_are_positive",
        ADAPTER | {"model.adapter": {"rank_pattern": "ranks.json"}},
        ADAPTER | {"model.adapter": {"rank_pattern": "nothing.json"}},
        "model.adapter.rank_pattern",
        "there is no file",
    ),
    (
        "patterns_are_positive",
        ADAPTER | {"model.adapter": {"rank_pattern": {}}},
        ADAPTER | {"model.adapter": {"rank_pattern": "broken.py"}},
        "model.adapter.rank_pattern",
        "is no JSON",
    ),
    (
        "continued_adapter_stands_alone",
        ADAPTER | {"model.adapter": {"continue_from": "adapter"}},
        ADAPTER | {"model.adapter": {"continue_from": "adapter", "r": 8, "dropout": 0.1}},
        "model.adapter.continue_from",
        "take out dropout, r",
    ),
    (
        "continued_adapter_stands_alone",
        ADAPTER | {"model.adapter": {"continue_from": "./adapter"}},
        ADAPTER | {"model.adapter": {"continue_from": "empty"}},
        "model.adapter.continue_from",
        "holds no adapter_config.json",
    ),
    (
        "adapter_starts_from_whole_weights",
        ADAPTER | ZERO | {"train.deepspeed.stage": 2, "model.adapter": {"init": "pissa"}},
        ADAPTER | STAGE_3 | {"model.adapter": {"init": "pissa"}},
        "model.adapter.init",
        "use ddp, or stage 2",
    ),
    (
        "adapter_starts_from_whole_weights",
        ADAPTER | {"model.adapter": {"init": "eva"}},
        TWO | ADAPTER | {"model.adapter": {"init": "eva"}, "train.strategy": "fsdp"},
        "model.adapter.init",
        "use ddp, or stage 2",
    ),
    (
        "adapter_starts_from_whole_weights",
        ADAPTER
        | {"model.adapter.init": "eva", "model.quantization": "nf4", "resources.gpus_per_node": 1},
        ADAPTER
        | {"model.adapter.init": "olora", "model.quantization": "nf4"}
        | {"resources.gpus_per_node": 1},
        "model.adapter.init",
        "take model.quantization out",
    ),
    (
        "adapter_starts_from_whole_weights",
        ADAPTER | {"model.adapter": {"init": "orthogonal", "r": 4, "rank_pattern": {"q_proj": 2}}},
        ADAPTER | {"model.adapter": {"init": "orthogonal", "rank_pattern": {"q_proj": 3}}},
        "model.adapter.init",
        "even ranks",
    ),
    (
        "tokens_are_trained_once",
        ADAPTER | {"model.adapter": {"trainable_tokens": "new", "modules_to_save": ["norm"]}},
        ADAPTER | {"model.adapter": {"trainable_tokens": [5], "modules_to_save": ["embed_tokens"]}},
        "model.adapter.trainable_tokens",
        "keep one of the two",
    ),
    (
        "tokens_are_trained_once",
        ADAPTER | {"model.adapter": {"trainable_tokens": [5]}},
        ADAPTER | STAGE_3 | {"model.adapter": {"trainable_tokens": [5]}},
        "model.adapter.trainable_tokens",
        "use ddp, or stage 2",
    ),
    (
        "tokens_are_trained_once",
        {"data.tokenizer": {"name": "a/b", "extend": {"tokens": ["x"]}}, "model.name": "a/b"}
        | {"model.from_scratch": ..., "train.mode": "adapter"}
        | {"model.adapter": {"trainable_tokens": "new"}},
        {"data.tokenizer": {"name": "a/b"}, "model.name": "a/b", "model.from_scratch": ...}
        | {"train.mode": "adapter", "model.adapter": {"trainable_tokens": "new"}},
        "model.adapter.trainable_tokens",
        "add data.tokenizer.extend",
    ),
    (
        "quantization_goes_with_an_adapter",
        ADAPTER
        | {"model.adapter": {"r": 8}, "model.quantization": "nf4", "resources.gpus_per_node": 1},
        BASE | {"model.quantization": "nf4", "resources.gpus_per_node": 1},
        "model.quantization",
        "nf4 weights are frozen; write train.mode: adapter",
    ),
    (
        "quantization_goes_with_an_adapter",
        ADAPTER
        | {"model.adapter": {"r": 8}, "model.quantization": "int8", "resources.gpus_per_node": 1},
        ADAPTER | {"model.adapter": {"r": 8}, "model.quantization": "nf4"},
        "model.quantization",
        "needs a GPU",
    ),
    (
        "quantization_goes_with_an_adapter",
        ADAPTER
        | STAGE_3
        | {"model.adapter": {"r": 8}, "model.quantization": "fp4", "resources.gpus_per_node": 2},
        ADAPTER
        | STAGE_3
        | {"model.adapter": {"r": 8}, "model.quantization": "int8", "resources.gpus_per_node": 2},
        "model.quantization",
        "int8 cannot be split",
    ),
    (
        "classes_exist",
        {"model.from_scratch.class": "own.py:Own"},
        {"model.from_scratch.class": "own.py:Oun"},
        "model.from_scratch.class",
        '"own.py" has no class "Oun"',
    ),
    (
        "classes_exist",
        {"model.from_scratch.class": "own.Own"},
        {"model.from_scratch.class": "nowhere.py:Own"},
        "model.from_scratch.class",
        "there is no file",
    ),
    (
        "classes_exist",
        BASE | {"model.class": "./own.py:Own"},
        BASE | {"model.class": "no_such_package.Own"},
        "model.class",
        "no package of that name",
    ),
    (
        "classes_exist",
        BASE | {"model.class": "json.Own"},
        {"model.class": "json.Own"},
        "model.class",
        "from_scratch: {class: ...}",
    ),
    (
        "auto_class_knows_its_type",
        {"model.from_scratch.class": "AutoModelForCausalLM"}
        | {"model.from_scratch.config.model_type": "llama"},
        {"model.from_scratch.class": "AutoModelForCausalLM"},
        "model.from_scratch.class",
        "needs config.model_type",
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
        "deepspeed_json_agrees",
        ZERO | {"train.deepspeed": "zero.json"},
        ZERO | {"train.deepspeed": "zero.json", "train.micro_batch_size": 2},
        "train.deepspeed",
        "train_micro_batch_size_per_gpu is 1 there, but 2 here",
    ),
    (
        "deepspeed_json_agrees",
        ZERO,
        ZERO | {"train.deepspeed": "none.json"},
        "train.deepspeed",
        "there is no file",
    ),
    (
        "deepspeed_json_agrees",
        ZERO,
        ZERO | {"train.deepspeed": "corpus/a.txt"},
        "train.deepspeed",
        "no JSON",
    ),
    (
        "deepspeed_json_agrees",
        ZERO | {"train.deepspeed": "zero3.json", "train.precision": "fp32"},
        ZERO | {"train.deepspeed": "bf16.json", "train.precision": "fp32"},
        "train.deepspeed",
        "bf16.enabled is true there, but false here (train.precision is fp32)",
    ),
    (
        "fsdp_goes_with_its_strategy",
        TWO | {"train.strategy": "fsdp", "train.fsdp": {"shard": "gradients"}},
        {"train.fsdp": {"shard": "full"}},
        "train.fsdp",
        "strategy is ddp; write train.strategy: fsdp",
    ),
    (
        "fsdp_has_ranks_to_split_over",
        TWO | {"train.strategy": "fsdp"},
        {"train.strategy": "fsdp"},
        "train.strategy",
        "write ddp",
    ),
    (
        "fp16_has_a_gpu",
        GPUS | {"train.precision": "fp16"},
        {"train.precision": "fp16"},
        "train.precision",
        "write bf16 or fp32",
    ),
    (
        "fp16_scales_float32",
        GPUS | {"train.precision": "fp16", "model.dtype": "float32"},
        GPUS | {"train.precision": "fp16", "model.dtype": "bfloat16"},
        "model.dtype",
        "write float32",
    ),
    (
        "fp16_scales_float32",
        GPUS | {"train.strategy": "fsdp"},
        GPUS | {"train.strategy": "fsdp", "train.precision": "fp16"},
        "train.precision",
        "write bf16",
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
    ("kernels_have_a_gpu", {"train.liger": "auto"}, {"train.liger": True}, "train.liger", "GPU"),
    (
        "kernels_have_a_gpu",
        {"model.attention": "flash_attention_2", "resources.gpus_per_node": 1},
        {"model.attention": "flash_attention_2"},
        "model.attention",
        "write auto or sdpa",
    ),
    (
        "kernels_have_a_gpu",
        {"train.optim": "paged_adamw_8bit", "resources.gpus_per_node": 1},
        {"train.optim": "paged_adamw_8bit"},
        "train.optim",
        "write adamw_torch_fused",
    ),
    (
        "flash_attention_has_its_types",
        {"model.attention": "flash_attention_3", "resources.gpus_per_node": 1},
        {
            "model.attention": "flash_attention_3",
            "resources.gpus_per_node": 1,
            "train.precision": "fp32",
        },
        "model.attention",
        "bf16 or fp16",
    ),
    (
        "compiled_models_are_whole",
        {"train.compile": True},
        ZERO | {"train.compile": True},
        "train.compile",
        "strategy: ddp or fsdp",
    ),
    (
        "checkpointing_is_said_once",
        {
            "train.activation_checkpointing": True,
            "train.activation_checkpointing_kwargs": {"determinism_check": "none"},
        },
        {
            "train.activation_checkpointing": {"every_n_layers": 2},
            "train.activation_checkpointing_kwargs": {"every_n_layers": 3},
        },
        "train.activation_checkpointing_kwargs",
        "keep the section",
    ),
    (
        "checkpointing_is_said_once",
        {},
        {"train.activation_checkpointing_kwargs": {"every_n_layers": 3}},
        "train.activation_checkpointing_kwargs",
        "would not be used",
    ),
    (
        "checkpointing_leaves_something",
        {
            "train.activation_checkpointing": {"every_n_layers": 2},
            "model.from_scratch.config.num_hidden_layers": 2,
        },
        {
            "train.activation_checkpointing": {"every_n_layers": 3},
            "model.from_scratch.config.num_hidden_layers": 2,
        },
        "train.activation_checkpointing.every_n_layers",
        "more than the 2 layers",
    ),
    (
        "checkpointing_leaves_something",
        {"train.activation_checkpointing.offload": True, "resources.gpus_per_node": 1},
        {"train.activation_checkpointing.offload": True},
        "train.activation_checkpointing.offload",
        "in host memory already",
    ),
]
