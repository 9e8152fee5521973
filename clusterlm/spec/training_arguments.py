"""The further keys of `train`: names and types of transformers.TrainingArguments.

A table, so that a mistake is found before the job waits in a queue, and without importing
transformers on a login node. It is that of transformers 5.23; a test compares it with the
installed one. Names that clusterlm decides itself, or that transformers has dropped, have been
carried over by `old_names.py` where the meaning is the same; here the rest is refused, with the key
to write instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clusterlm.errors import Problem
from clusterlm.spec.train import Train
from clusterlm.spec.wording import did_you_mean, shown

FLAG, INT, NUMBER, TEXT, ANY = "flag", "int", "number", "text", "any"

FREE: dict[str, str] = {
    "accelerator_config": ANY,
    "activation_checkpointing_kwargs": ANY,
    "adam_beta1": NUMBER,
    "adam_beta2": NUMBER,
    "adam_epsilon": NUMBER,
    "average_tokens_across_devices": FLAG,
    "batch_eval_metrics": FLAG,
    "bf16_full_eval": FLAG,
    "data_seed": INT,
    "dataloader_drop_last": FLAG,
    "dataloader_in_order": FLAG,
    "dataloader_multiprocessing_context": TEXT,
    "dataloader_num_workers": INT,
    "dataloader_persistent_workers": FLAG,
    "dataloader_pin_memory": FLAG,
    "dataloader_prefetch_factor": INT,
    "ddp_broadcast_buffers": FLAG,
    "ddp_bucket_cap_mb": INT,
    "ddp_find_unused_parameters": FLAG,
    "ddp_static_graph": FLAG,
    "ddp_timeout": INT,
    "debug": ANY,
    "eval_accumulation_steps": INT,
    "eval_delay": NUMBER,
    "eval_do_concat_batches": FLAG,
    "eval_use_gather_object": FLAG,
    "fp16_full_eval": FLAG,
    "full_determinism": FLAG,
    "hub_always_push": FLAG,
    "hub_model_id": TEXT,
    "hub_private_repo": FLAG,
    "hub_revision": TEXT,
    "hub_strategy": TEXT,
    "include_for_metrics": ANY,
    "include_num_input_tokens_seen": ANY,
    "label_smoothing_factor": NUMBER,
    "length_column_name": TEXT,
    "liger_kernel_config": ANY,
    "log_level": TEXT,
    "log_level_replica": TEXT,
    "log_on_each_node": FLAG,
    "logging_first_step": FLAG,
    "lr_scheduler_kwargs": ANY,
    "neftune_noise_alpha": NUMBER,
    "optim": TEXT,
    "optim_args": TEXT,
    "optim_target_modules": ANY,
    "per_device_eval_batch_size": INT,
    "project": TEXT,
    "push_to_hub": FLAG,
    "report_to": ANY,
    "skip_memory_metrics": FLAG,
    "tf32": FLAG,
    "torch_compile_backend": TEXT,
    "torch_compile_mode": TEXT,
    "torch_empty_cache_steps": INT,
    "trackio_bucket_id": TEXT,
    "trackio_space_id": TEXT,
    "trackio_static_space_id": ANY,
    "train_sampling_strategy": TEXT,
    "use_cache": FLAG,
}
"""Keys that go to the trainer as they are, and what their values are."""

OWNED: dict[str, str] = {
    "auto_find_batch_size": "the batch is what micro_batch_size says",
    "bf16": "write precision: bf16",
    "ddp_backend": "nccl on GPUs, gloo on the CPU",
    "disable_tqdm": "`clusterlm status` and `logs` show the progress",
    "do_eval": "evaluation follows data.validation and train.eval_steps",
    "do_predict": "there is no prediction phase",
    "do_train": "training is what the phase does",
    "enable_jit_checkpoint": "a stop request saves already; see recovery.stop_grace",
    "eval_strategy": "write eval_steps, and data.validation",
    "fp16": "write precision: fp16",
    "fsdp_config": "write fsdp: {shard: full, wrap: [...]}",
    "greater_is_better": "metrics.jsonl names the best evaluation",
    "gradient_accumulation_steps": "write gradient_accumulation or global_batch_size",
    "gradient_checkpointing": "write activation_checkpointing",
    "hub_token": "write secrets: [HF_TOKEN]",
    "ignore_data_skip": "a resumed run goes on with the data where it stopped",
    "label_names": "the prepared blocks bring their labels",
    "load_best_model_at_end": "the newest becomes the model; metrics.jsonl has every eval_loss",
    "local_rank": "the launcher gives it",
    "logging_nan_inf_filter": "a loss that is no number is always seen",
    "logging_strategy": "write logging_steps",
    "lr_scheduler_type": "write lr_scheduler",
    "metric_for_best_model": "metrics.jsonl names the best evaluation, by its loss",
    "num_train_epochs": "write epochs",
    "output_dir": "the run directory decides where everything lies",
    "parallelism_config": "strategies are ddp, fsdp and deepspeed",
    "per_device_train_batch_size": "write micro_batch_size",
    "prediction_loss_only": "logits of a whole evaluation do not fit into memory",
    "remove_unused_columns": "the prepared blocks have the columns that the model needs",
    "restore_callback_states_from_checkpoint": "a resumed run restores what it needs",
    "resume_from_checkpoint": "use `clusterlm resume`; restarts find the newest checkpoint",
    "run_name": "write name, at the top level",
    "save_on_each_node": "rank 0 alone writes",
    "save_only_model": "without the optimizer's state a run cannot resume",
    "save_strategy": "write save_steps",
    "save_total_limit": "write keep_checkpoints",
    "torch_compile": "write compile: true",
    "use_cpu": "write resources.gpus_per_node: 0",
    "use_liger_kernel": "write liger: true",
    "warmup_steps": "write warmup",
}
"""Keys of TrainingArguments that clusterlm decides, and what to write instead."""

GONE: dict[str, str] = {
    "adafactor": "write optim: adafactor",
    "dispatch_batches": "write accelerator_config: {dispatch_batches: ...}",
    "evaluation_strategy": OWNED["eval_strategy"],
    "fp16_backend": "write precision: bf16 or fp32",
    "fp16_opt_level": "write precision: bf16 or fp32",
    "fsdp_min_num_params": OWNED["fsdp_config"],
    "fsdp_transformer_layer_cls_to_wrap": OWNED["fsdp_config"],
    "group_by_length": "blocks are packed, all of one length",
    "half_precision_backend": "write precision: bf16 or fp32",
    "include_inputs_for_metrics": "write include_for_metrics: [inputs]",
    "jit_mode_eval": "transformers has dropped it",
    "logging_dir": "write env: {TENSORBOARD_LOGGING_DIR: ...}",
    "mp_parameters": "transformers has dropped it",
    "no_cuda": OWNED["use_cpu"],
    "past_index": "transformers has dropped it",
    "per_gpu_eval_batch_size": "write per_device_eval_batch_size",
    "per_gpu_train_batch_size": OWNED["per_device_train_batch_size"],
    "push_to_hub_model_id": "write hub_model_id",
    "push_to_hub_organization": "write hub_model_id: organization/name",
    "push_to_hub_token": OWNED["hub_token"],
    "ray_scope": "transformers has dropped it",
    "save_safetensors": "weights are always saved as safetensors",
    "sharded_ddp": "write strategy: fsdp",
    "split_batches": "write accelerator_config: {split_batches: ...}",
    "torch_dtype": "write model.dtype",
    "torchdynamo": "write compile and torch_compile_backend",
    "tpu_num_cores": "transformers has dropped it",
    "use_ipex": "transformers has dropped it",
    "use_mps_device": "transformers has dropped it",
    "xpu_backend": OWNED["ddp_backend"],
}
"""Keys of older TrainingArguments, and what to write instead."""

SCHEDULERS = (
    *("linear", "cosine", "cosine_with_restarts", "polynomial", "constant"),
    *("constant_with_warmup", "inverse_sqrt", "reduce_lr_on_plateau", "cosine_with_min_lr"),
    *("cosine_warmup_with_min_lr", "warmup_stable_decay", "greedy"),
)
OPTIMIZERS = (
    *("adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused"),
    *("adafactor", "adamw_anyprecision", "adamw_torch_4bit", "adamw_torch_8bit", "ademamix"),
    *("sgd", "adagrad", "adamw_bnb_8bit", "adamw_8bit", "ademamix_8bit", "lion_8bit"),
    *("lion_32bit", "paged_adamw_32bit", "paged_adamw_8bit", "paged_ademamix_32bit"),
    *("paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit", "rmsprop", "rmsprop_bnb"),
    *("rmsprop_bnb_8bit", "rmsprop_bnb_32bit", "galore_adamw", "galore_adamw_8bit"),
    *("galore_adafactor", "galore_adamw_layerwise", "galore_adamw_8bit_layerwise"),
    *("galore_adafactor_layerwise", "lomo", "adalomo", "grokadamw", "schedule_free_radam"),
    *("schedule_free_adamw", "schedule_free_sgd", "apollo_adamw", "apollo_adamw_layerwise"),
    "stable_adamw",
)


def read_flags(train: dict[str, Any]) -> None:
    """Make yes, no, on and off of further keys true or false, in place."""
    words = {"yes": True, "on": True, "no": False, "off": False}
    for key, value in train.items():
        if FREE.get(key) == FLAG and isinstance(value, str) and value.lower() in words:
            train[key] = words[value.lower()]


RANGES: dict[str, tuple[float, float | None]] = {
    "adam_beta1": (0, 1),
    "adam_beta2": (0, 1),
    "adam_epsilon": (0, None),
    "dataloader_num_workers": (0, None),
    "dataloader_prefetch_factor": (1, None),
    "ddp_bucket_cap_mb": (1, None),
    "ddp_timeout": (1, None),
    "label_smoothing_factor": (0, 1),
    "neftune_noise_alpha": (0, None),
    "per_device_eval_batch_size": (1, None),
    "torch_empty_cache_steps": (1, None),
}
"""Least value, and the first that is too large; torch finds these hours later, or never."""


def check_further_arguments(train: Train) -> Iterator[Problem]:
    """Further keys are known to TrainingArguments, are not clusterlm's, and have its types."""
    for key, value in train.further_arguments.items():
        where = f"train.{key}"
        if key in OWNED or key in GONE:
            yield Problem(where, f"not accepted: {OWNED.get(key) or GONE[key]}")
        elif key not in FREE:
            names = [*type(train).model_fields, *FREE]
            guess = did_you_mean(key, names)
            near = guess if guess.startswith("did") else "no key of train or TrainingArguments"
            yield Problem(where, f"unknown key; {near}")
        elif value is not None and not _has_type(value, FREE[key]):
            wanted = {FLAG: "true or false", INT: "a whole number", NUMBER: "a number"}
            yield Problem(where, f"found {shown(value)}; write {wanted.get(FREE[key], 'text')}")
        elif value is not None and key in RANGES:
            least, below = RANGES[key]
            if not least <= value or (below is not None and value >= below):
                upper = f" and less than {below}" if below is not None else ""
                yield Problem(where, f"{shown(value)} is out of range: at least {least}{upper}")


def _has_type(value: object, kind: str) -> bool:
    if kind == ANY:
        return True
    if isinstance(value, bool) or kind == FLAG:
        return isinstance(value, bool) and kind == FLAG
    accepted = {INT: int, NUMBER: int | float, TEXT: str}
    return isinstance(value, accepted[kind])
