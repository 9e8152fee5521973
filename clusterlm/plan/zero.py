"""What DeepSpeed is told: from the section, or read off the user's own JSON.

Defaults of keys that a JSON leaves out: https://www.deepspeed.ai/docs/config-json/.
"auto" is filled by transformers from the width of the model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterlm.errors import ClusterLMError
from clusterlm.spec.train import DeepSpeed, Train


@dataclass(frozen=True)
class Zero:
    """A ZeRO configuration.

    Attributes:
        stage: 0 nothing is split, 1 optimizer state, 2 and gradients, 3 and weights.
        bucket: elements of a reduce bucket; `overlaps` keeps two.
        persists_below: stage 3: parameters of up to so many elements stay whole on every rank.
        live: stage 3: elements that may be gathered at once, and `prefetch` ahead of them.
        sub_group: stage 3: elements that the optimizer updates at a time.
        is_own: read from the user's file.
    """

    stage: int
    offload_optimizer: bool = False
    offload_parameters: bool = False
    bucket: int = 0
    overlaps: bool = True
    persists_below: int = 0
    live: int = 10**9
    prefetch: int = 0
    sub_group: int = 10**9
    is_own: bool = False

    @property
    def words(self) -> str:
        """For people."""
        parts = ["optimizer"] * self.offload_optimizer + ["weights"] * self.offload_parameters
        offloaded = f", {' and '.join(parts)} offloaded" if parts else ""
        return f"DeepSpeed ZeRO-{self.stage}{offloaded}{', own JSON' if self.is_own else ''}"


def zero_of(train: Train, *, hidden: int) -> Zero:
    """The configuration of a job; stage auto is taken as 2 until it has been chosen."""
    asked = train.deepspeed or DeepSpeed()
    if isinstance(asked, str):
        return read_zero(Path(asked), hidden=hidden)
    stage = 2 if asked.stage == "auto" else asked.stage
    return zero_stage(
        stage,
        hidden=hidden,
        offload_optimizer=asked.offload_optimizer and stage >= 1,
        offload_parameters=asked.offload_parameters and stage == 3,
    )


def zero_stage(
    stage: int, *, hidden: int, offload_optimizer: bool = False, offload_parameters: bool = False
) -> Zero:
    """The configuration that clusterlm writes for a stage: every size is auto."""
    return Zero(
        stage=stage,
        offload_optimizer=offload_optimizer,
        offload_parameters=offload_parameters,
        bucket=hidden**2,
        persists_below=10 * hidden,
        prefetch=int(0.9 * hidden**2),
    )


def read_zero(path: Path, *, hidden: int) -> Zero:
    """The user's own JSON.

    Raises:
        ClusterLMError: it is not there or no JSON object.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ClusterLMError(f"train.deepspeed: {path} is not there") from None
    except (ValueError, OSError) as error:
        raise ClusterLMError(f"train.deepspeed: {path} cannot be read: {error}") from None
    zero = config.get("zero_optimization", {}) if isinstance(config, dict) else None
    if not isinstance(zero, dict):
        raise ClusterLMError(f"train.deepspeed: {path} must hold one JSON object")

    def size(key: str, auto: float, default: float) -> int:
        value = zero.get(key, default)
        return int(auto if value == "auto" else value)

    wide = hidden**2
    return Zero(
        stage=int(zero.get("stage", 0)),
        offload_optimizer=_is_off(zero, "offload_optimizer"),
        offload_parameters=_is_off(zero, "offload_param"),
        bucket=size("reduce_bucket_size", wide, 5e8),
        overlaps=bool(zero.get("overlap_comm", zero.get("stage") == 3)),
        persists_below=size("stage3_param_persistence_threshold", 10 * hidden, 1e5),
        live=size("stage3_max_live_parameters", 1e9, 1e9),
        prefetch=size("stage3_prefetch_bucket_size", 0.9 * wide, 5e7),
        sub_group=size("sub_group_size", 1e9, 1e9),
        is_own=True,
    )


def _is_off(zero: dict[str, Any], key: str) -> bool:
    return str((zero.get(key) or {}).get("device", "none")) != "none"
