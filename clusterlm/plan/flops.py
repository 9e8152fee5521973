"""Floating point operations of a training step, for MFU and for an estimate of the time.

Counted is what the mathematics asks for: matrix products of every layer and the output matrix, and
attention over the tokens before, once (causal: half of the square). A product of a matrix with a
token is 2 operations per element; the backward pass has two more products, one for the gradient of
the inputs and one for that of the matrix, and a frozen matrix needs only the first. So N elements
cost 6 N per token, frozen 4 N. The input embedding is a look-up and costs nothing.
Compare https://arxiv.org/abs/2204.02311, appendix B.
"""

from __future__ import annotations

from clusterlm.plan.gpus import peak_flops
from clusterlm.plan.shape import ModelShape

__all__ = ["hardware_flops_per_token", "model_flops_per_token", "peak_flops"]


def model_flops_per_token(
    shape: ModelShape,
    *,
    block_size: int,
    mode: str,
    mean_document: float | None = None,
    trained_share: float = 1.0,
) -> float:
    """Useful operations of one token, forward and backward: what MFU is measured with.

    Args:
        shape: of the model; of experts only the active ones count.
        block_size: tokens of a block.
        mode: train.mode; the matrices of an adapter are small and left out, which can only make
            the MFU smaller.
        mean_document: tokens of the document of an average token, where documents are isolated.
        trained_share: with mode partial: share of the matrices that is trained.
    """
    layers, head = shape.num_active_matrices, shape.num_head
    trained = {"full": (1.0, 1.0), "adapter": (0.0, 0.0), "embeddings": (0.0, 1.0)}
    in_layers, in_head = trained.get(mode, (trained_share, trained_share))
    products = layers * (4 + 2 * in_layers) + head * (4 + 2 * in_head)
    # both products of the attention have a backward pass of twice their cost, frozen or not
    return products + 3 * _attention(shape, block_size, mean_document)


def hardware_flops_per_token(
    shape: ModelShape,
    *,
    block_size: int,
    mode: str,
    mean_document: float | None = None,
    trained_share: float = 1.0,
    recomputed: float = 0.0,
) -> float:
    """The same and what activation checkpointing computes twice: what HFU is measured with.

    `recomputed` is the share of layers whose forward pass is done again, 0 to 1.
    """
    useful = model_flops_per_token(
        shape,
        block_size=block_size,
        mode=mode,
        mean_document=mean_document,
        trained_share=trained_share,
    )
    forward = 2 * shape.num_active_matrices + _attention(shape, block_size, mean_document)
    return useful + recomputed * forward


def _attention(shape: ModelShape, block_size: int, mean_document: float | None) -> float:
    """Forward: scores and weighted values, 2 operations each per element and token looked at."""
    looked_at = min(block_size, mean_document or block_size) / 2
    return 4 * shape.query_width * looked_at * shape.layers
