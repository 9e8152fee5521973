"""The matrices of a layer by the names that a model gives them, for adapters and name patterns."""

from __future__ import annotations

from collections.abc import Sequence

from clusterlm.plan.shape import ModelShape

Linear = tuple[str, int, int]
"""Name, width of the input, width of the output."""

INPUT_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")
HEADS = ("lm_head", "embed_out")


def layer_linears(shape: ModelShape) -> list[Linear]:
    """The linear layers of one layer; experts, which adapters leave alone, are not among them."""
    d, q, kv, f = shape.hidden, shape.query_width, shape.key_width, shape.intermediate
    fused = q + 2 * kv
    if shape.model_type == "gpt2":
        return [("c_attn", d, fused), ("c_proj", q, d), ("c_fc", d, f), ("c_proj", f, d)]
    if shape.model_type in {"gpt_neox", "falcon"}:
        inner = [("dense_h_to_4h", d, f), ("dense_4h_to_h", f, d)]
        return [("query_key_value", d, fused), ("dense", q, d), *inner]
    if shape.model_type == "phi3":
        inner = [("gate_up_proj", d, 2 * f), ("down_proj", f, d)]
        return [("qkv_proj", d, fused), ("o_proj", q, d), *inner]
    output, inner = "o_proj", [("gate_proj", d, f), ("up_proj", d, f), ("down_proj", f, d)]
    if shape.model_type == "opt":
        output, inner = "out_proj", [("fc1", d, f), ("fc2", f, d)]
    attention = [("q_proj", d, q), ("k_proj", d, kv), ("v_proj", d, kv), (output, q, d)]
    return attention if shape.sparse_layers else [*attention, *inner]


def chosen_linears(
    shape: ModelShape, targets: Sequence[str] | str, excluded: Sequence[str] = ()
) -> list[Linear]:
    """Those of one layer that an adapter sits on."""
    return [
        linear
        for linear in layer_linears(shape)
        if linear[0] not in excluded
        and (targets == "all-linear" or any(t.rpartition(".")[2] == linear[0] for t in targets))
    ]
