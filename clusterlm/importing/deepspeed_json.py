"""A DeepSpeed JSON: what of it the section `deepspeed` says, and what needs the file itself.

transformers fills in "auto", and clusterlm's own JSON has what most files have (overlapping
communication, contiguous gradients). A file that says no more than that becomes {stage, offload};
one that says more is used as it is, by its path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from clusterlm.importing.draft import Draft

GATHER = "stage3_gather_16bit_weights_on_model_save"
SAME_AS_OURS: dict[str, tuple[object, ...]] = {
    "steps_per_print": (),
    "wall_clock_breakdown": (False,),
    "zero_allow_untested_optimizer": (True,),
    "zero_optimization.allgather_partitions": (True,),
    "zero_optimization.reduce_scatter": (True,),
    "zero_optimization.overlap_comm": (True,),
    "zero_optimization.contiguous_gradients": (True,),
    "zero_optimization.round_robin_gradients": (False,),
    "zero_optimization.sub_group_size": (1e9,),
    f"zero_optimization.{GATHER}": (True,),
    "zero_optimization.offload_optimizer.pin_memory": (True,),
    "zero_optimization.offload_param.pin_memory": (True,),
    "fp16.loss_scale": (0,),
    "fp16.auto_cast": (False,),
    "fp16.initial_scale_power": (16,),
    "fp16.loss_scale_window": (1000,),
    "fp16.hysteresis": (2,),
    "fp16.min_loss_scale": (1,),
}
"""Keys, and values, that change nothing; () is any value."""

TRAIN_KEYS = {
    "gradient_clipping": "train.max_grad_norm",
    "train_micro_batch_size_per_gpu": "train.micro_batch_size",
    "gradient_accumulation_steps": "train.gradient_accumulation",
    "train_batch_size": "train.global_batch_size",
    "optimizer.params.lr": "train.learning_rate",
    "optimizer.params.weight_decay": "train.weight_decay",
    "optimizer.params.eps": "train.adam_epsilon",
    "scheduler.params.warmup_num_steps": "train.warmup",
    "scheduler.params.total_num_steps": "train.max_steps",
}
"""Numbers that a job says in `train`."""


def looks_like_deepspeed(config: object) -> bool:
    """Whether a JSON is one of DeepSpeed's."""
    keys = {"zero_optimization", "train_micro_batch_size_per_gpu", "train_batch_size"}
    return isinstance(config, dict) and bool(keys & set(config))


def read_deepspeed(
    config: dict[str, Any], name: str, draft: Draft, *, can_be_used: bool, overrules: bool = True
) -> None:
    """Put a DeepSpeed JSON into the draft.

    Args:
        config: what the file holds.
        name: its path, as job.yaml would name it.
        draft: of the job.
        can_be_used: the file is there, and not only a text within a script.
        overrules: what it says in numbers goes into `train`, too.
    """
    zero = config.get("zero_optimization")
    zero = zero if isinstance(zero, dict) else {}
    stage = zero.get("stage", 0)
    further = sorted(_further(config))
    draft.put("train.strategy", "deepspeed", f"{name}")
    draft.remove("train.deepspeed")
    if overrules:
        _read_numbers(config, name, draft)
    section: dict[str, Any] = {"stage": stage if stage in (0, 1, 2, 3) else 2}
    for key, ours in (("offload_optimizer", "offload_optimizer"), ("offload_param", "")):
        device = zero.get(key, {}).get("device") if isinstance(zero.get(key), dict) else None
        if device == "cpu":
            section[ours or "offload_parameters"] = True
    if further and can_be_used:
        said = ", ".join(f"{key}: {str(value).lower()}" for key, value in section.items())
        draft.add("train.deepspeed", name, f"used as it is; much the same: {{{said}}}")
        draft.note(name, f"says more than {{{said}}}: {', '.join(further)}")
    else:
        draft.add("train.deepspeed", section, f"{name} says no more than this")
        if further:
            draft.comments["train.deepspeed"] = f"from {name}; see above for what is left out"
            draft.drop(f"{name}: {', '.join(further)}", "the file itself is not there to be used")
    for warn in WARNINGS:
        if words := warn(config):
            draft.note(name, words)


def _read_numbers(config: dict[str, Any], name: str, draft: Draft) -> None:
    for key, place in TRAIN_KEYS.items():
        value = _value_at(config, key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            draft.put(place, value, f"{key} in {name}")
    for kind in ("bf16", "fp16"):
        if _value_at(config, f"{kind}.enabled") is True:
            draft.put("train.precision", kind, f"{kind}.enabled in {name}")


def _further(config: dict[str, Any]) -> Iterator[str]:
    """Keys that say more than the section does."""
    for key, value in _leaves(config):
        same = SAME_AS_OURS.get(key)
        is_ours = same is not None and (not same or value in same)
        if value == "auto" or is_ours or key in TRAIN_KEYS:
            continue
        if key.endswith((".stage", "bf16.enabled", "fp16.enabled")):
            continue
        if key.endswith(".device") and value in ("cpu", "none"):
            continue
        yield key.removeprefix("zero_optimization.")


def _leaves(config: dict[str, Any], outer: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{outer}{key}.")
        else:
            yield f"{outer}{key}", value


def _value_at(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _persistence(config: dict[str, Any]) -> str | None:
    found = _value_at(config, "zero_optimization.stage3_param_persistence_threshold")
    if isinstance(found, int | float) and found >= 1e7:
        # JSON has whole numbers that no float can hold
        size = f"{found:g}" if found < 1e300 else "without end"
        return (
            f"stage3_param_persistence_threshold {size}: weights below that stay whole on every "
            'GPU, so stage 3 splits next to nothing; "auto" is ten times the model\'s width'
        )
    return None


def _no_gather(config: dict[str, Any]) -> str | None:
    stage = _value_at(config, "zero_optimization.stage")
    if stage == 3 and not _value_at(config, f"zero_optimization.{GATHER}"):
        return f"stage 3 without {GATHER}: true leaves shards at the end; `check` asks for it"
    return None


def _half(config: dict[str, Any]) -> str | None:
    if _value_at(config, "fp16.enabled") is True:
        return "fp16: on GPUs since 2020 bf16 needs no loss scaling and does not overflow"
    return None


WARNINGS: tuple[Callable[[dict[str, Any]], str | None], ...] = (_persistence, _no_gather, _half)
"""What is worth a look."""
