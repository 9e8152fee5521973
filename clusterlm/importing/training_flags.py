"""Options of training scripts: the place in a job.yaml, or why there is none.

Tables only. They hold every option of the scripts that the documents of this project use
(Chinese-LLaMA-Alpaca, ruadapt, FastChat, transformers' run_clm, training on The Pile). Options of
TrainingArguments stand in none of them: those are keys of `train`, old names included
(`spec/old_names.py`). `command.py` reads the tables, `programs.py` what the data are.
"""

from __future__ import annotations

MOVED: dict[str, str] = {
    # the model
    "model_name_or_path": "model.name",
    "model_revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "attn_implementation": "model.attention",
    "tokenizer_name": "data.tokenizer.name",
    "tokenizer_name_or_path": "data.tokenizer.name",
    # the adapter
    "lora_r": "model.adapter.r",
    "lora_rank": "model.adapter.r",
    "lora_alpha": "model.adapter.alpha",
    "lora_dropout": "model.adapter.dropout",
    "lora_bias": "model.adapter.bias",
    "lora_target_modules": "model.adapter.target_modules",
    "trainable": "model.adapter.target_modules",
    "modules_to_save": "model.adapter.modules_to_save",
    "rank_pattern_path": "model.adapter.rank_pattern",
    "alpha_pattern_path": "model.adapter.alpha_pattern",
    "peft_path": "model.adapter.continue_from",
    # the data
    "block_size": "data.block_size",
    "max_length": "data.block_size",
    "max_seq_length": "data.block_size",
    "model_max_length": "data.block_size",
    "preprocessing_num_workers": "resources.preprocess.cpus",
    # names that a script of one's own gives to what TrainingArguments has
    "batch_size": "train.micro_batch_size",
    "accumulation_steps": "train.gradient_accumulation",
    "lr": "train.learning_rate",
    "find_unused_parameters": "train.ddp_find_unused_parameters",
}
"""Options whose value is that of a key."""

LISTS = ("model.adapter.target_modules", "model.adapter.modules_to_save")
"""Places that hold lists; on a command line they are one text with commas."""

DATA: tuple[str, ...] = (
    *("data_path", "dataset_dir", "dataset_name", "dataset_config_name", "train_file"),
    *("validation_file", "eval_data_path", "validation_split_percentage"),
    *("max_train_samples", "max_eval_samples"),
)
"""Options that say what is trained on; what they mean depends on the script."""

SWITCHES: dict[str, dict[str, object]] = {
    "attention_4d": {"data.isolate_documents": True},
    "flash_attn": {"model.attention": "flash_attention_2"},
    "force_resize_embeddings": {"model.vocab": "resize"},
    "load_in_4bit": {"model.quantization": "nf4"},
    "load_in_8bit": {"model.quantization": "int8"},
    "q_lora": {"model.quantization": "nf4"},
    "use_dora": {"model.adapter.method": "dora"},
    "use_eva": {"model.adapter.init": "eva"},
    "use_flash_attention_2": {"model.attention": "flash_attention_2"},
    "use_rslora": {"model.adapter.rslora": True},
}
"""Options that, switched on, set keys."""

OFF = "is off"
CACHED = "prepared data is cached by its content"
DROPPED: dict[str, str] = {
    "cache_dir": "export HF_HOME, or write env: {HF_HOME: ...}",
    "data_cache_dir": CACHED,
    "debug_mode": "`clusterlm dry-run` makes a small trial",
    "keep_linebreaks": "texts are kept as they are",
    "lazy_preprocess": "data is tokenized once, before the training",
    "llama3_tokenizer": "the script does not use it",
    "logging_dir": "logs and metrics lie in the run directory",
    "lora_weight_path": "the script does not use it to train",
    "low_cpu_mem_usage": "weights are loaded without a second copy",
    "output_dir": "every run has a folder of its own, with the model in it",
    "overwrite_cache": CACHED,
    "padding_side": "blocks are padded at their end",
    "resume_from_checkpoint": "a run resumes by itself, or with `clusterlm resume`",
    "streaming": "data is read in pieces, and never whole into memory",
    "train_path": CACHED,
    "use_fast_tokenizer": "tokenizers are the fast ones",
    "val_path": CACHED,
}
"""Options without a place in a job, and why."""

OTHER_COMMANDS: dict[str, str] = {
    **dict.fromkeys(
        ("base_model", "lora_model", "offload_dir", "output_type", "verbose"),
        "that is of merging: `clusterlm merge`",
    ),
    **dict.fromkeys(
        (
            *("tokenizer_path", "data_file", "with_prompt", "interactive", "predictions_file"),
            *("gpus", "only_cpu", "alpha", "temperature", "repetition_penalty", "max_new_tokens"),
        ),
        "that is of talking to a model: `clusterlm chat`",
    ),
}
"""Options of the scripts that merge and chat, which are other commands here."""

UNCLEAR: dict[str, str] = {
    "config_name": "write model.from_scratch: {class: ..., config: {...}} from that configuration",
    "config_overrides": "write them into model.from_scratch.config",
    "model_type": "a new model: write model.from_scratch: {class: ..., config: {...}}",
}
"""Options that have a place, but not as they are written."""

SPECIAL: tuple[str, ...] = (
    *("deepspeed", "deepspeed_config", "peft", "run_name", "seed", "torch_dtype", "config"),
    *("use_auth_token", "token", "hub_token", "wsd_constant_part"),
)
"""Options that `special_flags.py` reads one by one."""

PLACEHOLDERS: dict[str, object] = {
    "data.block_size": 1024,
    "train.epochs": 3,
    "train.learning_rate": 5e-5,
    "train.max_steps": 1000,
    "train.micro_batch_size": 1,
    "train.gradient_accumulation": 1,
    "model.adapter.r": 8,
    "model.adapter.alpha": 16,
}
"""What stands where a variable is not set in the script, to be changed."""

DEFAULTS: dict[str, tuple[object, str]] = {
    "train.micro_batch_size": (8, "per_device_train_batch_size"),
    "train.learning_rate": (5e-5, "learning_rate"),
    "train.lr_scheduler": ("linear", "lr_scheduler_type"),
    "train.precision": ("fp32", "neither bf16 nor fp16"),
}
"""What TrainingArguments takes where the command line says nothing, and job.yaml something else."""
