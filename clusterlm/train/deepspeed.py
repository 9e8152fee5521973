"""The DeepSpeed JSON: made from the spec, or the user's own, taken as it is.

"auto" is filled by transformers from the TrainingArguments, bucket sizes from the model's width
(https://huggingface.co/docs/transformers/deepspeed). What is set here and why:

- On the CPU there is no fused Adam to insist on (`zero_force_ds_cpu_optimizer: false`).
- Offloading on a GPU takes DeepSpeed's own AdamW: torch's is many times slower on the host.
- Stage 3 gathers the weights when a model is saved; without it only shards would be written.
- Over several nodes stage 3 keeps a second copy of the weights, split over the GPUs of each node
  (hpZ, https://arxiv.org/abs/2306.10209): the backward pass then gathers them within the node.
- In the user's own JSON only what could not run or not be saved is completed, in memory.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clusterlm.errors import TrainError
from clusterlm.node.files import write_json
from clusterlm.spec.job import Job
from clusterlm.spec.train import DeepSpeed
from clusterlm.train.rank import Rank
from clusterlm.train.universal import is_universal

GATHER_KEY = "stage3_gather_16bit_weights_on_model_save"
BATCH_KEYS = (
    *("train_batch_size", "train_micro_batch_size_per_gpu"),
    "gradient_accumulation_steps",
)
HOST = {"device": "cpu", "pin_memory": True}


def choose_deepspeed(
    job: Job, rank: Rank, *, on_cpu: bool, say: Callable[[str], None] = print
) -> dict[str, Any] | None:
    """The JSON of this run, or None with another strategy; rank 0 leaves a copy in the run."""
    if job.train.strategy != "deepspeed":
        return None
    asked = job.train.deepspeed or DeepSpeed()
    if isinstance(asked, str):
        copy = rank.run.deepspeed
        path = copy if copy.is_file() else Path(asked)
        config, completed = complete_own_json(read_own_json(path), on_cpu=on_cpu)
        for key in completed:
            say(f"{Path(asked).name}: {key} is set for this run")
        return config | _universal(rank)
    stage = choose_stage(asked, job)
    # with weights on the host there is nothing to keep on the node's GPUs
    several_nodes = rank.world_size > rank.local_world_size > 1 and not on_cpu
    config = build_json(
        asked,
        stage=stage,
        precision=job.train.precision,
        on_cpu=on_cpu,
        gpus_per_node=rank.local_world_size if several_nodes else None,
    )
    if rank.is_first:
        write_json(rank.run.deepspeed, config)
    return config | _universal(rank)


def _universal(rank: Rank) -> dict[str, Any]:
    return {"checkpoint": {"load_universal": True}} if is_universal(rank.resume_from) else {}


def choose_stage(asked: DeepSpeed, job: Job) -> int:
    """The stage asked for; auto: 2, or 3 when parameters are to be offloaded."""
    if asked.stage != "auto":
        return asked.stage
    return 3 if asked.offload_parameters else 2


def join_deepspeed(*, on_cpu: bool) -> None:
    """Let DeepSpeed use the process group that is there; before a model is split by stage 3.

    Without it `zero.Init` counts one rank. On a CPU this compiles a small operator, once a machine.
    """
    import deepspeed

    # torch 2.13 renames the collectives that DeepSpeed 0.19 calls, and says so in every call
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    deepspeed.init_distributed(dist_backend="gloo" if on_cpu else "nccl", verbose=False)


def read_own_json(path: Path) -> dict[str, Any]:
    """The user's file, as it is."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainError(f"train.deepspeed: {path} is not there") from None
    except ValueError as error:
        raise TrainError(f"train.deepspeed: {path} is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise TrainError(f"train.deepspeed: {path} must hold one JSON object")
    return config


def complete_own_json(config: dict[str, Any], *, on_cpu: bool) -> tuple[dict[str, Any], list[str]]:
    """The user's JSON with what it needs to run here and to be saved; and the keys that were set.

    Raises:
        TrainError: it asks for fp16 on a CPU.
    """
    config = dict(config)
    zero = dict(config.get("zero_optimization") or {})
    completed = []
    # they agree with the job (`spec/rules_strategy.py`), which may run on fewer ranks than it asks
    config |= {key: "auto" for key in BATCH_KEYS if key in config}
    if on_cpu and (config.get("fp16") or {}).get("enabled") is True:
        raise TrainError(
            "train.deepspeed: the JSON has fp16.enabled: true, and no CPU trains in fp16; "
            "set it to false there, or ask for GPUs in resources.gpus_per_node"
        )
    if zero_stage(config) == 3 and not zero.get(GATHER_KEY):
        config["zero_optimization"] = zero | {GATHER_KEY: True}
        completed.append(f"zero_optimization.{GATHER_KEY}")
    if on_cpu:
        config.setdefault("zero_force_ds_cpu_optimizer", False)
    elif zero.get("offload_optimizer") and "optimizer" not in config:
        # DeepSpeed refuses torch's AdamW there: it is many times slower on the host
        config["optimizer"] = _own_adamw()
        completed.append("optimizer (DeepSpeed's AdamW)")
    return config, completed


def zero_stage(config: dict[str, Any] | None) -> int:
    """What is split over the ranks; 0 also without DeepSpeed."""
    return int(((config or {}).get("zero_optimization") or {}).get("stage", 0))


def build_json(
    asked: DeepSpeed, *, stage: int, precision: str, on_cpu: bool, gpus_per_node: int | None = None
) -> dict[str, Any]:
    """The JSON for a stage, with offload and precision.

    Args:
        asked: the section of the spec.
        stage: what is split, 0 to 3.
        precision: bf16, fp16 or fp32.
        on_cpu: there is no GPU.
        gpus_per_node: where there are several nodes of several GPUs.
    """
    config: dict[str, Any] = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": precision == "bf16"},
        # loss_scale 0: found while training
        "fp16": {"enabled": True, "loss_scale": 0} if precision == "fp16" else {"enabled": False},
        "zero_optimization": _zero(asked, stage, gpus_per_node),
    }
    if on_cpu:
        config["zero_force_ds_cpu_optimizer"] = False
    elif asked.offload_optimizer:
        config["optimizer"] = _own_adamw()
    return config


def _own_adamw() -> dict[str, Any]:
    params = dict.fromkeys(("lr", "betas", "eps", "weight_decay"), "auto")
    return {"type": "AdamW", "params": params}


def _zero(asked: DeepSpeed, stage: int, gpus_per_node: int | None) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": stage}
    if stage >= 1:
        zero |= {"overlap_comm": True, "contiguous_gradients": True, "reduce_bucket_size": "auto"}
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            GATHER_KEY: True,
        }
    if asked.offload_optimizer and stage >= 1:
        zero["offload_optimizer"] = dict(HOST)
    if asked.offload_parameters and stage == 3:
        zero["offload_param"] = dict(HOST)
    elif stage == 3 and gpus_per_node:
        zero["zero_hpz_partition_size"] = gpus_per_node
    return zero
