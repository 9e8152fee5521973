"""The loss without logits that nothing is learned from.

In chats most tokens carry no label, and with a large vocabulary the last layer and its softmax are
a good part of a step. So the last layer gets only the states whose next token is a label: the loss
is a sum over the same numbers as before, and the logits take that much less memory. A hook on the
last layer does it, so wrappers (DDP, DeepSpeed, FSDP, peft) see an ordinary forward pass.

It is used where it is known to be right: the loss of the class is the plain one, and on a small
copy of the model both ways give the same number.
"""

# B = blocks, T = tokens of a block, H = width, N = labels, V = vocabulary

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy, pad

from clusterlm.data.blocks import IGNORE_INDEX
from clusterlm.train.isolation import VOCAB, WIDTHS, find_class, shrink

SAME = 1e-4
"""Relative difference of the two ways, in float32."""


class SupervisedHead:
    """The last layer of a model, run only where a label needs logits."""

    def __init__(self, model: Any) -> None:
        self._places_N: torch.Tensor | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._select)

    def logits(self, model: Any, inputs: dict[str, Any], wanted_BT: torch.Tensor) -> torch.Tensor:
        """The logits at the places wanted, of shape (N, V)."""
        self._places_N = wanted_BT.flatten().nonzero().flatten()
        try:
            found: torch.Tensor = model(**inputs)["logits"]
        finally:
            self._places_N = None
        return found

    def _select(self, module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._places_N is None:
            return None
        states_BTH, *others = inputs
        return states_BTH.flatten(0, 1).index_select(0, self._places_N), *others


def find_head(model: Any) -> tuple[SupervisedHead | None, str]:
    """The head of a model, or why every logit must be computed."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = getattr(base, "config", None)
    if not hasattr(base, "get_output_embeddings") or base.get_output_embeddings() is None:
        return None, "the model has no layer of its own for logits"
    if getattr(config, "output_router_logits", False):
        return None, "the loss of the router is computed along with the loss"
    # loss_utils.py of transformers: one function for all language models without a wish of theirs
    if getattr(getattr(base, "loss_function", None), "__name__", "") != "ForCausalLMLoss":
        return None, "the model has a loss of its own"
    if not _gives_same_loss(type(base), config):
        return None, "it does not give the same loss in this model"
    return SupervisedHead(model), "logits are computed only where there is a label"


def loss_of_labels(
    head: SupervisedHead,
    model: Any,
    inputs: dict[str, Any],
    total: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """The mean of the losses of all labels, weighted where the batch has weights.

    Args:
        head: of the model.
        model: as the trainer has wrapped it.
        inputs: a batch; a label is the token itself, predicted at the one before.
        total: divide by this instead of the number (weight) of these labels.
    """
    inputs = dict(inputs)
    labels_BT, weights_BT = inputs.pop("labels"), inputs.pop("loss_weights", None)
    targets_BT = pad(labels_BT[:, 1:], (0, 1), value=IGNORE_INDEX)
    wanted_BT = targets_BT != IGNORE_INDEX
    logits_NV = head.logits(model, inputs, wanted_BT).float()
    losses_N = cross_entropy(logits_NV, targets_BT[wanted_BT], reduction="none")
    if weights_BT is None:
        return losses_N.sum() / (losses_N.numel() if total is None else total)
    weights_N = pad(weights_BT[:, 1:], (0, 1))[wanted_BT]
    whole = weights_N.sum() if total is None else torch.as_tensor(total, device=weights_N.device)
    # where nothing counts, nothing is learned
    return (losses_N * weights_N).sum() / whole.clamp(min=1e-8)


@torch.no_grad()
def _gives_same_loss(model_class: Any, config: Any) -> bool:
    attention = config._attn_implementation or "sdpa"
    if attention not in ("sdpa", "eager"):
        attention = "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for widths in WIDTHS:
            try:
                small = find_class(model_class, config)(shrink(config, widths, attention)).eval()
                ids_BT = torch.randint(1, VOCAB, (2, 12))
                batch = {
                    "input_ids": ids_BT,
                    "labels": torch.where(torch.rand(2, 12) < 0.5, ids_BT, IGNORE_INDEX),
                    "position_ids": torch.arange(12).expand(2, 12),
                }
                usual = small(**batch)["loss"]
                ours = loss_of_labels(SupervisedHead(small), small, batch)
            # any config of anybody may be what is tried here; then the usual way it is
            except Exception:
                continue
            return bool((usual - ours).abs() <= SAME * usual.abs())
    return False
