"""Other names for what a job.yaml says: TrainingArguments of every age, arguments of HF scripts.

A name is carried over where the meaning is the same, with a note for the user. What means something
else here is left where it stands, and `training_arguments.py` refuses it with the key to write. Two
names for one thing may both be there when they agree; else the problem names both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from clusterlm.errors import Problem
from clusterlm.spec.fsdp_names import read_fsdp, read_fsdp_config, read_wrapped
from clusterlm.spec.units import flag_of
from clusterlm.spec.wording import shown

Job = dict[str, Any]
Sets = dict[str, Any]
"""Dotted places, and what to write there."""
Reading = Callable[[Any, Job], Sets | str | None]
"""From a value, and the job as written, to what it sets; a text: it may be left out, and why; None:
it cannot be carried over. A ValueError says what is wrong with the value."""

ANY = object()
"""In NO_EFFECT: whatever the value is."""

RENAMED: dict[str, str] = {
    "gradient_accumulation_steps": "gradient_accumulation",
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
    "lr_scheduler_type": "lr_scheduler",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "micro_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "per_gpu_train_batch_size": "micro_batch_size",
    "push_to_hub_model_id": "hub_model_id",
    "torch_compile": "compile",
    "use_liger_kernel": "liger",
    # argparse takes a beginning of an option for the option, and scripts rely on it
    "eval_step": "eval_steps",
    "logging_step": "logging_steps",
    "max_step": "max_steps",
    "save_step": "save_steps",
    "warmup_step": "warmup",
}
"""Names in `train` whose value means the same under the new one."""

NO_EFFECT: dict[str, tuple[object, str]] = {
    "adafactor": (False, "train.optim decides"),
    "auto_find_batch_size": (False, "that is so"),
    "ddp_backend": ("nccl", "that is so on GPUs"),
    "disable_tqdm": (ANY, "`clusterlm status` shows the progress"),
    "do_predict": (False, "there is no prediction phase"),
    "do_train": (True, "training is what the phase does"),
    "enable_jit_checkpoint": (False, "a stop request saves; see recovery.stop_grace"),
    "fp16_backend": ("auto", "torch's own is what there is"),
    "fp16_opt_level": (ANY, "it was for apex"),
    "fsdp_min_num_params": (0, "layers are split one by one"),
    "group_by_length": (ANY, "blocks are of one length"),
    "half_precision_backend": ("auto", "torch's own is what there is"),
    "ignore_data_skip": (False, "a resumed run goes on with the data where it stopped"),
    "include_tokens_per_second": (ANY, "metrics.jsonl always has it"),
    "load_best_model_at_end": (False, "the newest whole checkpoint becomes the model"),
    "local_rank": (ANY, "the launcher gives it"),
    "logging_nan_inf_filter": (False, "a loss that is no number is always seen"),
    "logging_strategy": ("steps", "logging_steps says how often"),
    "no_cuda": (False, "resources.gpus_per_node decides"),
    "overwrite_output_dir": (ANY, "every run has a folder of its own"),
    "prediction_loss_only": (True, "that is so"),
    "remove_unused_columns": (False, "that is so"),
    "resume_from_checkpoint": (False, "`clusterlm resume` does"),
    "save_on_each_node": (False, "rank 0 alone writes"),
    "save_only_model": (False, "that is so"),
    "save_safetensors": (True, "weights are always saved so"),
    "save_strategy": ("steps", "save_steps says how often"),
    "use_cpu": (False, "resources.gpus_per_node decides"),
}
"""Names in `train` that may be left out: with this value nothing changes, and why."""

DTYPES = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16", "float": "float32"}
OPTIMIZERS = {"adamw_hf": "adamw_torch", "adamw_apex_fused": "adamw_torch_fused"}


@dataclass
class Translated:
    """What became of the old names.

    Attributes:
        notes: one for each, for the user to see.
        problems: values that contradict each other, or mean nothing.
        origins: where a value that was moved stood in the file.
    """

    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)


def translate_old_names(job: Job) -> Translated:
    """Carry old names of `train` and `model` over to the new ones, in place."""
    done = Translated()
    for section, readings in (("train", TRAIN), ("model", MODEL)):
        written = job.get(section)
        if not isinstance(written, dict):
            continue
        before = {**job, section: dict(written)}
        for name in [name for name in readings if name in written]:
            _carry_over(job, before, f"{section}.{name}", readings[name], done)
    return done


def _carry_over(job: Job, before: Job, where: str, read: Reading, done: Translated) -> None:
    section, name = where.split(".")
    value = before[section][name]
    try:
        meaning = read(value, before)
    except ValueError as error:
        del job[section][name]
        done.problems.append(Problem(where, str(error)))
        return
    if meaning is None:
        return
    del job[section][name]
    if isinstance(meaning, str):
        done.notes.append(f"{where} left out: {meaning}")
        return
    for place, new in meaning.items():
        problem = _put(job, place, new, done.origins)
        if problem is not None:
            done.problems.append(Problem(where, f"says {place}: {shown(new)}, but {problem}"))
            return
        done.origins[place] = where
    said = ", ".join(f"{place}: {_spoken(new)}" for place, new in meaning.items())
    done.notes.append(f"{where} read as {said}")


def _put(job: Job, place: str, value: Any, origins: dict[str, str]) -> str | None:
    """Write a value, or say what stands in its way."""
    *outer, last = place.split(".")
    holder = job
    for key in outer:
        if holder.get(key) is None:
            holder[key] = {}
        holder = holder[key]
        if not isinstance(holder, dict):
            return f"{key} is {shown(holder)}; keep one of the two"
    if last in holder and holder[last] != value:
        return f"{origins.get(place, place)} says {shown(holder[last])}; keep one of the two"
    holder[last] = value
    return None


def _spoken(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_spoken, value)) + "]"
    return shown(value).strip('"')


def _renamed(place: str) -> Reading:
    return lambda value, job: {place: value}


def _without_effect(harmless: object, why: str) -> Reading:
    def read(value: Any, job: Job) -> str | None:
        if isinstance(harmless, bool):
            value = _as_flag(value)
        # null is how YAML says that an argument was not given
        return why if harmless is ANY or value is None or value == harmless else None

    return read


def _as_flag(value: Any) -> Any:
    try:
        return flag_of(value)
    except ValueError:
        return value


def _holds_back(job: Job) -> bool:
    data = job.get("data")
    if not isinstance(data, dict):
        return False
    sources = data.get("sources")
    parts = [data, *(s for s in sources if isinstance(s, dict))] if sources else [data]
    return any(part.get("validation") for part in parts)


def _evaluation(value: Any, job: Job) -> Sets | str:
    word = "no" if value is False else str(value).lower()
    train = job["train"]
    if word == "steps":
        if train.get("eval_steps") is None and "logging_steps" in train:
            # TrainingArguments evaluates as often as it logs, unless it is told otherwise
            return {"train.eval_steps": train["logging_steps"]}
        return "eval_steps says how often, and data.validation on what"
    if word == "no" and not _holds_back(job):
        return "there is no data.validation, so nothing is evaluated"
    if word == "no":
        raise ValueError("says that nothing is evaluated; take data.validation out for that")
    if word == "epoch":
        raise ValueError(
            "once an epoch is not accepted; write eval_steps: N (the steps of an epoch are its "
            "blocks / blocks per step; `clusterlm data stats` counts the blocks)"
        )
    raise ValueError(f"found {shown(value)}; write eval_steps: N, and data.validation")


def _do_eval(value: Any, job: Job) -> str:
    if flag_of(value) or not _holds_back(job):
        return "evaluation follows data.validation"
    raise ValueError("says that nothing is evaluated; take data.validation out for that")


def _bf16(value: Any, job: Job) -> Sets | str:
    if flag_of(value):
        return {"train.precision": "bf16"}
    train = job["train"]
    if train.get("precision") or _as_flag(train.get("fp16")) is True:
        return "train.precision decides"
    return {"train.precision": "fp32"}


def _fp16(value: Any, job: Job) -> Sets | str:
    return {"train.precision": "fp16"} if flag_of(value) else "train.precision decides"


def _warmup_steps(value: Any, job: Job) -> Sets | str:
    return (
        "0 is how transformers says that there is none" if value == 0 else {"train.warmup": value}
    )


def _warmup_ratio(value: Any, job: Job) -> Sets | str:
    if isinstance(value, int | float) and value >= 1:
        raise ValueError(f"found {value}; a share of all steps is below 1")
    return _warmup_steps(value, job)


def _max_steps(value: Any, job: Job) -> str | None:
    is_none = value in (-1, 0) and not isinstance(value, bool)
    return "epochs decide, as with -1 in transformers" if is_none else None


def _save_total_limit(value: Any, job: Job) -> Sets:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"found {shown(value)}; write keep_checkpoints: 2, or more")
    return {"train.keep_checkpoints": max(2, value)}


def _optim(value: Any, job: Job) -> Sets | None:
    return {"train.optim": OPTIMIZERS[value]} if value in OPTIMIZERS else None


def _adafactor(value: Any, job: Job) -> Sets | str:
    return {"train.optim": "adafactor"} if flag_of(value) else "train.optim decides"


def _dtype(value: Any, job: Job) -> Sets | str:
    if value is None:
        return "model.dtype decides"
    word = value.removeprefix("torch.") if isinstance(value, str) else value
    return {"model.dtype": DTYPES.get(word, word)}


def _quantized(kind: str) -> Reading:
    def read(value: Any, job: Job) -> Sets | str:
        return {"model.quantization": kind} if flag_of(value) else "model.quantization decides"

    return read


TRAIN: dict[str, Reading] = {
    **{name: _without_effect(*row) for name, row in NO_EFFECT.items()},
    **{name: _renamed(f"train.{new}") for name, new in RENAMED.items()},
    "adafactor": _adafactor,
    "bf16": _bf16,
    "do_eval": _do_eval,
    "eval_strategy": _evaluation,
    "evaluation_strategy": _evaluation,
    "fp16": _fp16,
    "fsdp": read_fsdp,
    "fsdp_config": read_fsdp_config,
    "fsdp_transformer_layer_cls_to_wrap": read_wrapped,
    "max_steps": _max_steps,
    "optim": _optim,
    "processing_class": _renamed("data.tokenizer.name"),
    "save_total_limit": _save_total_limit,
    "tokenizer": _renamed("data.tokenizer.name"),
    "tokenizer_name": _renamed("data.tokenizer.name"),
    "tokenizer_name_or_path": _renamed("data.tokenizer.name"),
    "torch_dtype": _dtype,
    "warmup_ratio": _warmup_ratio,
    "warmup_steps": _warmup_steps,
}
MODEL: dict[str, Reading] = {
    "attn_implementation": _renamed("model.attention"),
    "load_in_4bit": _quantized("nf4"),
    "load_in_8bit": _quantized("int8"),
    "model_name_or_path": _renamed("model.name"),
    "tokenizer_name_or_path": _renamed("data.tokenizer.name"),
    "torch_dtype": _dtype,
}
"""What is read in each section, in this order."""
