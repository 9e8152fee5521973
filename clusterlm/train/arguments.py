"""train: section -> transformers.TrainingArguments, for transformers 4.57 and 5.x.

The names differ between the generations (warm-up, activation checkpointing); which one is there is
seen from the fields that exist, so that no version number decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Set
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import transformers
from packaging.version import Version
from transformers import TrainingArguments

from clusterlm.errors import TrainError
from clusterlm.spec.job import Job
from clusterlm.spec.train import Train
from clusterlm.spec.wording import one_line
from clusterlm.train.deepspeed import zero_stage
from clusterlm.train.fsdp import fsdp_fields
from clusterlm.train.speed import layer_choice, speed_fields

# what the rest of this room relies on; a spec that sets one would be overruled in silence
OURS = frozenset(
    {
        "bf16",
        "ddp_backend",
        "deepspeed",
        "disable_tqdm",
        "fp16",
        "fsdp",
        "fsdp_config",
        "load_best_model_at_end",
        "logging_nan_inf_filter",
        "output_dir",
        "prediction_loss_only",
        "remove_unused_columns",
        "save_only_model",
        "save_strategy",
        "save_total_limit",
        "use_cpu",
    }
)

# DeepSpeed before this crashes on frozen weights in a non-reentrant checkpoint (DeepSpeed #8148)
NON_REENTRANT_ZERO3 = Version("0.19.4")


def make_arguments(
    job: Job,
    *,
    output_dir: Path,
    world_size: int,
    on_cpu: bool,
    validates: bool,
    deepspeed: dict[str, Any] | None,
) -> TrainingArguments:
    """The arguments of this run, made before the model: stage 3 splits it while it is loaded."""
    if on_cpu and job.train.precision == "fp16":
        raise TrainError("train.precision: no CPU trains in fp16; write bf16 or fp32")
    fields = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    # further keys of the job go before what is only faster
    values = speed_fields(job, fields, on_cpu=on_cpu)
    values |= translate_train(
        job.train,
        fields,
        accumulation=accumulation_steps(job, world_size),
        validates=validates,
        run_name=job.name,
    )
    values |= {
        "output_dir": str(output_dir),
        "use_cpu": on_cpu,
        "ddp_backend": "gloo" if on_cpu else None,
        "deepspeed": deepspeed,
        **fsdp_fields(job, fields),
    }
    if job.train.activation_checkpointing:
        frozen = job.train.mode != "full"
        reentrant = needs_reentrant(deepspeed, frozen=frozen, installed=_deepspeed_version())
        layers = layer_choice(job.train.activation_checkpointing)
        values |= checkpointing_fields(fields, reentrant=reentrant, **layers)
    try:
        return TrainingArguments(**values)
    except ValueError as error:
        raise TrainError(f"train: {one_line(error)}") from error


def translate_train(
    train: Train,
    fields: Set[str],
    *,
    accumulation: int,
    validates: bool,
    run_name: str | None = None,
) -> dict[str, Any]:
    """Our keys in the words of the installed TrainingArguments, further keys behind them."""
    values = {
        **_optimisation(train, fields, accumulation),
        **_rhythm(train, validates=validates),
        "bf16": train.precision == "bf16",
        "fp16": train.precision == "fp16",
        "seed": train.seed,
        "data_seed": train.seed,
        # every weight is used in every step; searching for unused ones costs time
        "ddp_find_unused_parameters": False,
        # blocks carry position_ids that a model's signature may not name
        "remove_unused_columns": False,
        "report_to": "none",
        "run_name": run_name,
        "disable_tqdm": True,
        "log_level": "warning",
    }
    further = train.further_arguments
    if taken := sorted(OURS & set(further)):
        raise TrainError(f"train: {', '.join(taken)} cannot be set, clusterlm decides it")
    if unknown := sorted(set(further) - set(fields)):
        raise TrainError(
            f"train: transformers {transformers.__version__} has no argument {', '.join(unknown)}"
        )
    return values | further


def accumulation_steps(job: Job, world_size: int) -> int:
    """Forward passes of a rank per optimizer step.

    On another number of ranks than the job asks for (`recovery.min_nodes`) so many that a step
    takes as many blocks as it would there; where that does not come out even, the nearest number.

    Raises:
        TrainError: global_batch_size is written, and cannot be kept.
    """
    train = job.train
    if world_size == job.resources.world_size and train.global_batch_size is None:
        return job.gradient_accumulation
    total, per_pass = job.global_batch_size, train.micro_batch_size * world_size
    if train.global_batch_size is not None:
        total = train.global_batch_size
    steps, rest = divmod(total, per_pass)
    if train.global_batch_size is not None and (rest or not steps):
        raise TrainError(
            f"train.global_batch_size {total} is no multiple of micro_batch_size "
            f"{train.micro_batch_size} x {world_size} ranks = {per_pass}"
        )
    return max(1, round(total / per_pass))


def needs_reentrant(deepspeed: dict[str, Any] | None, *, frozen: bool, installed: Version) -> bool:
    """Whether activation checkpoints must be of the old, reentrant kind.

    The new kind is right everywhere but with stage 3, frozen weights and an old DeepSpeed.
    """
    return frozen and zero_stage(deepspeed) == 3 and installed < NON_REENTRANT_ZERO3


def checkpointing_fields(fields: Set[str], *, reentrant: bool, **layers: Any) -> dict[str, Any]:
    """Switch activation checkpointing on, under the name this transformers has for it.

    `layers` says which, see `speed.layer_choice`.
    """
    name = "activation_checkpointing"
    if name not in fields:
        name = "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": reentrant, **layers}}


def _optimisation(train: Train, fields: Set[str], accumulation: int) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": train.micro_batch_size,
        "per_device_eval_batch_size": train.micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": train.epochs,
        "max_steps": train.max_steps or -1,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.lr_scheduler,
        **_warmup(train.warmup, fields),
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
    }


def _warmup(warmup: float, fields: Set[str]) -> dict[str, Any]:
    if warmup >= 1:
        return {"warmup_steps": int(warmup)}
    # 5.x reads a warmup_steps below 1 as a share; 4.57 has a field of its own for it
    return {"warmup_ratio" if "warmup_ratio" in fields else "warmup_steps": warmup}


def _rhythm(train: Train, *, validates: bool) -> dict[str, Any]:
    """When to log, save, evaluate; nothing is filtered from the loss, and nothing is deleted."""
    return {
        "logging_strategy": "steps",
        "logging_steps": train.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": train.save_steps,
        "save_total_limit": None,
        "eval_strategy": "steps" if validates else "no",
        "eval_on_start": train.eval_on_start and validates,
        "eval_steps": (train.eval_steps or train.save_steps) if validates else None,
        # logits of a whole evaluation do not fit into memory
        "prediction_loss_only": True,
    }


def _deepspeed_version() -> Version:
    try:
        return Version(version("deepspeed"))
    except PackageNotFoundError:
        return NON_REENTRANT_ZERO3
