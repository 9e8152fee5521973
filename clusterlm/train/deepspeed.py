"""The DeepSpeed JSON: made from the spec, or the user's own, taken as it is.

"auto" is filled by transformers from the TrainingArguments, bucket sizes from the model's width
(https://huggingface.co/docs/transformers/deepspeed). What is set here and why:

- On the CPU there is no fused Adam to insist on (`zero_force_ds_cpu_optimizer: false`).
- Offloading on a GPU takes DeepSpeed's own AdamW: torch's is many times slower on the host.
- Stage 3 gathers the weights when a model is saved; without it only shards would be written.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from clusterlm.errors import TrainError
from clusterlm.node.files import write_json
from clusterlm.spec.job import Job
from clusterlm.spec.train import DeepSpeed
from clusterlm.train.rank import Rank

GATHER_KEY = "stage3_gather_16bit_weights_on_model_save"
HOST = {"device": "cpu", "pin_memory": True}


def choose_deepspeed(job: Job, rank: Rank, *, on_cpu: bool) -> dict[str, Any] | None:
    """The JSON of this run, or None with another strategy; rank 0 leaves a copy in the run."""
    if job.train.strategy != "deepspeed":
        return None
    asked = job.train.deepspeed or DeepSpeed()
    if isinstance(asked, str):
        copy = rank.run.deepspeed
        return read_own_json(copy if copy.is_file() else Path(asked))
    config = build_json(asked, precision=job.train.precision, on_cpu=on_cpu)
    if rank.is_first:
        write_json(rank.run.deepspeed, config)
    return config


def join_deepspeed(*, on_cpu: bool) -> None:
    """Let DeepSpeed use the process group that is there; before a model is split by stage 3.

    Without it `zero.Init` counts one rank. On a CPU this compiles a small operator, once a machine.
    """
    import deepspeed

    # torch 2.13 renames the collectives that DeepSpeed 0.19 calls, and says so in every call
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    deepspeed.init_distributed(dist_backend="gloo" if on_cpu else "nccl", verbose=False)


def read_own_json(path: Path) -> dict[str, Any]:
    """The user's file; only what would lose the trained model at the end is refused."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainError(f"train.deepspeed: {path} is not there") from None
    except ValueError as error:
        raise TrainError(f"train.deepspeed: {path} is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise TrainError(f"train.deepspeed: {path} must hold one JSON object")
    if zero_stage(config) == 3 and not config["zero_optimization"].get(GATHER_KEY):
        raise TrainError(
            f"train.deepspeed: {path} has stage 3 without zero_optimization.{GATHER_KEY}: true; "
            "the trained model could not be saved as one"
        )
    return config


def zero_stage(config: dict[str, Any] | None) -> int:
    """What is split over the ranks; 0 also without DeepSpeed."""
    return int(((config or {}).get("zero_optimization") or {}).get("stage", 0))


def build_json(asked: DeepSpeed, *, precision: str, on_cpu: bool) -> dict[str, Any]:
    """The JSON for a stage, with offload and precision."""
    config: dict[str, Any] = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": False},
        "zero_optimization": _zero(asked),
    }
    if on_cpu:
        config["zero_force_ds_cpu_optimizer"] = False
    elif asked.offload_optimizer:
        params = dict.fromkeys(("lr", "betas", "eps", "weight_decay"), "auto")
        config["optimizer"] = {"type": "AdamW", "params": params}
    return config


def _zero(asked: DeepSpeed) -> dict[str, Any]:
    stage = 2 if asked.stage == "auto" else asked.stage
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
    return zero
