"""What share of the device's arithmetic a training uses.

    MFU   the FLOPs that the model needs for the tokens that are no padding / those the GPU could do
    HFU   what is really computed: padding and recomputed activations too

FLOPs of a token come from the config (`plan.flops`), never from the parameters that an engine
holds: under ZeRO-3 these are a part. Attention counts once for what the causal mask leaves; frozen
weights have no gradient. Peak FLOPs are the dense ones of the data sheet; unknown devices give no
share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clusterlm.plan.flops import hardware_flops_per_token, model_flops_per_token, peak_flops
from clusterlm.plan.shape import ModelShape, shape_of
from clusterlm.spec.train import Checkpointing, Train


@dataclass(frozen=True)
class Efficiency:
    """FLOPs of a token, and of the device in a second; None where unknown."""

    useful: float | None = None
    hardware: float | None = None
    peak: float | None = None

    def mfu(self, tokens_per_s: float) -> float | None:
        """Share of useful FLOPs; `tokens_per_s` of one device, without padding."""
        return _share(self.useful, tokens_per_s, self.peak)

    def hfu(self, tokens_per_s: float) -> float | None:
        """Share of all FLOPs; `tokens_per_s` of one device, with padding."""
        return _share(self.hardware, tokens_per_s, self.peak)


def efficiency_of(
    config: dict[str, Any],
    train: Train,
    *,
    block_size: int,
    mean_document: float | None,
    device: str,
    trained_share: float = 1.0,
) -> Efficiency:
    """That of a model on a device.

    Args:
        config: of the model, as in its config.json.
        train: mode, precision, checkpointing.
        block_size: tokens of a block.
        mean_document: of an average token, where documents are isolated; else None.
        device: its name.
        trained_share: of the weights, with mode partial.
    """
    peak, shape = peak_flops(device, train.precision), _shape(config)
    if shape is None:
        return Efficiency(peak=peak)
    known: dict[str, Any] = {
        "block_size": block_size,
        "mode": train.mode,
        "mean_document": mean_document,
        "trained_share": trained_share,
    }
    recomputed = recomputed_share(train.activation_checkpointing)
    hardware = hardware_flops_per_token(shape, recomputed=recomputed, **known)
    return Efficiency(model_flops_per_token(shape, **known), hardware, peak)


def recomputed_share(asked: bool | Checkpointing) -> float:
    """Share of the layers whose activations are computed twice."""
    if isinstance(asked, Checkpointing):
        return 1 / asked.every_n_layers
    return 1.0 if asked else 0.0


def _shape(config: dict[str, Any]) -> ModelShape | None:
    try:
        return shape_of(config)
    # a model of one's own may have a config that tells something else; it trains all the same
    except (KeyError, TypeError, ValueError):
        return None


def _share(flops: float | None, tokens_per_s: float, peak: float | None) -> float | None:
    return flops * tokens_per_s / peak if flops is not None and peak else None
