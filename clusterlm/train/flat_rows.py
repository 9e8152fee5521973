"""Rows laid one behind the other, with the places where documents begin.

FlashAttention sees restarting positions only in batches of one row (transformers,
`_is_packed_sequence`) and joins documents in silence where there are more; told the places, it
takes any number, and does not search for them again in every layer.
"""

# B = blocks, T = tokens of a block, D = documents of a batch

from __future__ import annotations

from typing import Any

import torch


def lay_rows_flat(batch: dict[str, Any]) -> dict[str, Any]:
    """One row of B x T tokens, and where its documents begin.

    Positions 0 1 2 0 | 0 1 0 1 give the starts 0 3 4 6 and the end 8. The first label of each row
    is ignored anyway, so no row predicts the next.
    """
    positions_BT = batch["position_ids"]
    flat = {
        name: value.reshape(1, -1)
        if torch.is_tensor(value) and value.shape == positions_BT.shape
        else value
        for name, value in batch.items()
    }
    starts_D = (positions_BT.flatten() == 0).nonzero().flatten()
    bounds = torch.cat([starts_D, starts_D.new_tensor([positions_BT.numel()])]).to(torch.int32)
    # an upper bound is enough, and reading the longest from the GPU would wait for it
    longest = positions_BT.shape[1]
    return flat | {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }
