"""FSDP, version 2 (torch.distributed.fsdp.fully_shard), in the words of both transformers.

- Checkpoints are sharded (torch.distributed.checkpoint): no rank ever holds the whole optimizer,
  and any number of ranks can read them. The model at the end is gathered and written whole: with
  sharded state dicts transformers writes nothing there (transformers #30491).
- Activations are recomputed by transformers, not by accelerate's wrapper: that one (1.15) does not
  keep the random state, so dropout would draw anew, and it renames every weight.
- accelerate (1.15) switches FSDP on for GPUs only; `use_on_cpu` does it for ranks on a CPU.
"""

from __future__ import annotations

import os
from collections.abc import Set
from typing import Any

from clusterlm.errors import TrainError
from clusterlm.spec.job import Job
from clusterlm.spec.train import Fsdp

SHARDED, WHOLE = "SHARDED_STATE_DICT", "FULL_STATE_DICT"
# a field that only the generation before 5 has: there FSDP's version is told by the environment
OLD_FIELD = "fsdp_min_num_params"


def fsdp_fields(job: Job, fields: Set[str]) -> dict[str, Any]:
    """The TrainingArguments for strategy: fsdp, none with another.

    The generation before 5 reads the version and the kind of state dict from the environment, which
    is set here.
    """
    if job.train.strategy != "fsdp":
        return {}
    asked = job.train.fsdp or Fsdp()
    config: dict[str, Any] = {"version": 2, "state_dict_type": SHARDED}
    if asked.wrap:
        config["transformer_layer_cls_to_wrap"] = [name.rpartition(".")[2] for name in asked.wrap]
    if OLD_FIELD in fields:
        os.environ |= _environment(asked)
        offload = ["offload"] if asked.offload else []
        return {"fsdp": " ".join(["full_shard", "auto_wrap", *offload]), "fsdp_config": config}
    config |= {"reshard_after_forward": asked.shard == "full", "cpu_offload": asked.offload}
    return {"fsdp": True, "fsdp_config": config}


def use_on_cpu(trainer: Any) -> None:
    """Let accelerate split a model over ranks on the CPU, as it does over GPUs."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state = trainer.accelerator.state
    if getattr(state, "fsdp_plugin", None) is not None:
        return
    given = getattr(trainer.args, "fsdp_plugin_args", None) or {}
    plugin = FullyShardedDataParallelPlugin(**given)
    if trainer.args.bf16:
        plugin.set_mixed_precision("bf16")
    # whoever asks for the state again gets this from the shared part of it
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    state.distributed_type = DistributedType.FSDP
    state.fsdp_plugin = plugin
    trainer.is_fsdp_enabled = True


def refuse_unknown_layers(job: Job, model: Any) -> None:
    """Refuse layers to wrap that the model does not have, and a model that names none."""
    if job.train.strategy != "fsdp":
        return
    asked = [name.rpartition(".")[2] for name in (job.train.fsdp or Fsdp()).wrap]
    found = {type(module).__name__ for module in model.modules()}
    if missing := sorted(set(asked) - found):
        raise TrainError(
            f"train.fsdp.wrap: the model has no layer of class {', '.join(missing)}; it has "
            f"{', '.join(sorted(found))}"
        )
    if not asked and not getattr(model, "_no_split_modules", None):
        raise TrainError(
            f"train.fsdp.wrap: {type(model).__name__} does not name its layers; write the class of "
            f"those to split one by one, of {', '.join(sorted(found))}"
        )


def gather_on_save(trainer: Any) -> None:
    """From now on a save writes one whole model, not shards; on all ranks, before the last save."""
    if getattr(trainer, "is_fsdp_enabled", False):
        plugin = trainer.accelerator.state.fsdp_plugin
        plugin.state_dict_config = plugin.optim_state_dict_config = None
        plugin.set_state_dict_type(WHOLE)


def _environment(asked: Fsdp) -> dict[str, str]:
    return {
        "FSDP_VERSION": "2",
        "FSDP_RESHARD_AFTER_FORWARD": str(asked.shard == "full").lower(),
        "FSDP_STATE_DICT_TYPE": SHARDED,
    }
