"""What makes a training fast here, what of it is on, and why.

Everything is a default that a key of `train` switches off (docs/speed.md). The two questions are
answered from one table of parts, so what is told is what is done. Nothing heavy is imported for the
telling: `clusterlm plan` shows it on a login node.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, MutableMapping, Set
from importlib.metadata import version
from typing import Any, NamedTuple

from clusterlm.errors import TrainError
from clusterlm.spec.job import Job
from clusterlm.spec.train import Checkpointing, Train

LIGER = "liger_kernel"
ALLOCATOR = "expandable_segments:True"


class Part(NamedTuple):
    """One means to be fast."""

    name: str
    on: bool
    why: str


def speed_fields(job: Job, fields: Set[str], *, on_cpu: bool) -> dict[str, Any]:
    """The arguments of TrainingArguments that are about speed alone.

    Args:
        job: the spec.
        fields: names that the installed TrainingArguments has.
        on_cpu: there is no GPU to train on.

    Raises:
        TrainError: kernels were asked for that are not here.
    """
    train = job.train
    values: dict[str, Any] = {
        # torch 2.4 has it on the CPU, too; transformers takes it from torch 2.8 on by itself
        "optim": "adamw_torch_fused",
        "average_tokens_across_devices": True,
        "torch_compile": train.compile,
        "use_liger_kernel": _use_liger(job, on_cpu=on_cpu),
        **_loader(train, on_cpu=on_cpu),
    }
    return {name: value for name, value in values.items() if name in fields}


def explain_speed(job: Job, *, on_cpu: bool) -> list[tuple[str, bool, str]]:
    """Each means with whether it is on and why, for a reader."""
    train, further = job.train, job.train.further_arguments
    optimizer = str(further.get("optim", "adamw_torch_fused"))
    workers = _loader(train, on_cpu=on_cpu).get("dataloader_num_workers")
    workers = further.get("dataloader_num_workers", workers or 0)
    return [
        Part("packed blocks", _is_packed(job), _why_packed(job)),
        Part("fused optimizer", "fused" in optimizer, f"optim is {optimizer}"),
        Part("Liger kernels", *_explain_liger(train.liger, on_cpu=on_cpu)),
        Part("loader processes", workers > 0, _why_workers(workers, on_cpu=on_cpu)),
        Part("torch.compile", train.compile, "asked for" if train.compile else "compile: false"),
        Part("expandable memory segments", *_explain_allocator(os.environ, on_cpu=on_cpu)),
        Part("activations kept", *_explain_checkpointing(train.activation_checkpointing)),
    ]


def speed_line(parts: list[tuple[str, bool, str]]) -> str:
    """One line for the log: what is on, what is off, each with its reason."""
    words = [f"{name} {'on' if on else 'off'} ({why})" for name, on, why in parts]
    return "speed: " + "; ".join(words)


def layer_choice(asked: bool | Checkpointing) -> dict[str, Any]:
    """Which layers are checkpointed, as transformers 5.2x spells it; nothing for all of them.

    Raises:
        TrainError: the installed transformers knows all layers or none.
    """
    if not isinstance(asked, Checkpointing):
        return {}
    chosen: dict[str, Any] = {}
    if asked.every_n_layers > 1:
        chosen["every_n_layers"] = asked.every_n_layers
    if asked.offload:
        chosen["offload"] = True
    if chosen and not _transformers_chooses_layers():
        raise TrainError(
            f"train.activation_checkpointing: transformers {version('transformers')} recomputes "
            f"all layers or none, {' and '.join(chosen)} came with 5.2x; write true, or put a "
            "newer one into the image"
        )
    return chosen


def set_allocator(environment: MutableMapping[str, str], *, on_cpu: bool) -> None:
    """Let CUDA memory grow in place, unless the user has said how; before it is first used."""
    if not on_cpu and not _allocator_of(environment):
        environment["PYTORCH_CUDA_ALLOC_CONF"] = ALLOCATOR


def _use_liger(job: Job, *, on_cpu: bool) -> bool:
    asked = job.train.liger
    if asked is False or (asked == "auto" and (on_cpu or not _installed(LIGER))):
        return False
    if on_cpu:
        raise TrainError("train.liger: its kernels run on GPUs alone; write auto or false")
    if not _installed(LIGER):
        raise TrainError(
            "train.liger: liger-kernel is not installed here; add it to image.pip, "
            "or write liger: auto"
        )
    known = _liger_knows(job)
    if asked is True and not known:
        raise TrainError("train.liger: liger-kernel does not know this model; write liger: auto")
    return known


def _liger_knows(job: Job) -> bool:
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN as known

    return _model_type(job) in known


def _model_type(job: Job) -> str | None:
    """Such as llama: from the config beside the weights, or from the class of a new model."""
    import transformers

    model = job.model
    if model is None:
        return None
    if model.from_scratch is not None:
        made_by = getattr(transformers, model.from_scratch.class_, None)
        return getattr(getattr(made_by, "config_class", None), "model_type", None)
    config, _ = transformers.PretrainedConfig.get_config_dict(model.name, revision=model.revision)
    found: str | None = config.get("model_type")
    return found


def _loader(train: Train, *, on_cpu: bool) -> dict[str, Any]:
    """Two processes beside a GPU; on the CPU they would take cores from the model."""
    if on_cpu:
        # nothing is copied to a device; transformers warns of pinning without one
        return {"dataloader_num_workers": 0, "dataloader_pin_memory": False}
    if train.further_arguments.get("dataloader_num_workers", 2) == 0:
        return {"dataloader_pin_memory": True}
    # not persistent: the order of a new epoch reaches only processes that start with it
    return {
        "dataloader_num_workers": 2,
        "dataloader_prefetch_factor": 4,
        "dataloader_pin_memory": True,
    }


def _is_packed(job: Job) -> bool:
    return job.data is not None and job.data.packing != "padded"


def _why_packed(job: Job) -> str:
    if job.data is None:
        return "the data is that of train.command"
    apart = "kept apart" if job.data.isolate_documents else "that see each other"
    return f"packing {job.data.packing}, documents {apart}, all blocks of one length"


def _explain_liger(asked: bool | str, *, on_cpu: bool) -> tuple[bool, str]:
    if asked is False:
        return False, "liger: false"
    if on_cpu:
        return False, "no GPU"
    if asked is True:
        return True, "asked for"
    if not _installed(LIGER):
        return False, "liger-kernel is not installed here"
    return True, "where it knows the model"


def _why_workers(workers: int, *, on_cpu: bool) -> str:
    if workers:
        return f"{workers} read ahead of the GPU into pinned memory"
    return "blocks are mapped, cores are for the model" if on_cpu else "dataloader_num_workers: 0"


def _explain_allocator(environment: Mapping[str, str], *, on_cpu: bool) -> tuple[bool, str]:
    if on_cpu:
        return False, "no GPU"
    said = _allocator_of(environment)
    on = not said or ALLOCATOR in said
    return on, f"the environment says {said}" if said else "less memory is lost between sizes"


def _explain_checkpointing(asked: bool | Checkpointing) -> tuple[bool, str]:
    if asked is False:
        return True, "nothing is computed twice; activation_checkpointing saves memory"
    if asked is True or asked.every_n_layers == 1:
        return False, "every layer is computed twice to save memory"
    return False, f"one layer of {asked.every_n_layers} is computed twice to save memory"


def _allocator_of(environment: Mapping[str, str]) -> str | None:
    # torch 2.9 has the second name beside the first
    names = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
    return next((environment[name] for name in names if environment.get(name)), None)


def _transformers_chooses_layers() -> bool:
    import inspect

    from transformers import PreTrainedModel

    enable = getattr(PreTrainedModel, "activation_checkpointing_enable", None)
    return enable is not None and "every_n_layers" in inspect.signature(enable).parameters


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
