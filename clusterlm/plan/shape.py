"""What a model consists of, read off its config: widths, layers, and the number of parameters.

Pure arithmetic on the dict of a config.json, so a login node needs no torch. The counts are exact
for the types in `families.py`; the tests compare them with models on torch's meta device. Of any
other type nothing is guessed: `shape_of` gives None.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from clusterlm.plan.families import CLASSES, Config, complete, value_of


@dataclass(frozen=True)
class ModelShape:
    """A decoder of equal layers.

    Attributes:
        hidden: width of the residual stream.
        heads: of queries; `kv_heads` of keys and values, `head_dim` the width of each.
        intermediate: width inside the feed-forward part of a layer without experts.
        gated: the feed-forward part has three matrices (SwiGLU), else two.
        tied: the output matrix is the input embedding.
        experts: in a layer, 0 without; a token goes through `active_experts` of them, each
            `expert_intermediate` wide, and through `shared_intermediate` always.
        dense_layers: layers without experts in a model that has some.
        learned_positions: rows of a position embedding, 0 with rotary positions.
        embedding_dim: width of the embedding where it is not that of the layers (OPT), else 0.
        attention_biases: biases in the attention of a layer.
        mlp_biases: biases in the feed-forward part of a layer.
        layer_norms: weights of the norms of a layer.
        final_norms: weights behind the last layer.
        model_type: as in config.json; empty for a shape made up from a number of parameters.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool = False
    gated: bool = True
    experts: int = 0
    active_experts: int = 0
    expert_intermediate: int = 0
    shared_intermediate: int = 0
    dense_layers: int = 0
    learned_positions: int = 0
    embedding_dim: int = 0
    attention_biases: int = 0
    mlp_biases: int = 0
    layer_norms: int = 0
    final_norms: int = 0
    model_type: str = ""

    @property
    def query_width(self) -> int:
        """All query heads together."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """All key heads together; the values are as wide."""
        return self.kv_heads * self.head_dim

    @property
    def attention_matrices(self) -> int:
        """Elements of query, key, value and output matrix of a layer."""
        return 2 * self.hidden * (self.query_width + self.key_width)

    @property
    def sparse_layers(self) -> int:
        """Layers with experts."""
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def num_embedding(self) -> int:
        """Elements of the input embedding, and of the output matrix where it is another one."""
        return self.num_input_embedding + self.num_head * (not self.tied)

    @property
    def num_input_embedding(self) -> int:
        """Elements of the table of token vectors."""
        return self.vocab * (self.embedding_dim or self.hidden)

    @property
    def num_head(self) -> int:
        """Elements of the matrix that gives the logits, shared with the input or not."""
        return self.vocab * (self.embedding_dim or self.hidden)

    @property
    def num_matrices(self) -> int:
        """Elements of the matrices in all layers."""
        return self._matrices(self.experts)

    @property
    def num_active_matrices(self) -> int:
        """The same, of the experts only those that a token goes through."""
        return self._matrices(self.active_experts)

    @property
    def num_parameters(self) -> int:
        """Every parameter; a tied matrix counts once."""
        return self.num_embedding + self.num_matrices + self._other

    @property
    def num_active(self) -> int:
        """Parameters that take part in the computation of one token, embeddings included."""
        return self.num_embedding + self.num_active_matrices + self._other

    @property
    def largest_layer(self) -> int:
        """Elements of one layer, what ZeRO-3 and FSDP gather at once."""
        return self.num_matrices // max(1, self.layers) + self.layer_norms

    def _matrices(self, experts: int) -> int:
        each = (3 if self.gated else 2) * self.hidden
        dense = each * self.intermediate
        sparse = each * (experts * self.expert_intermediate + self.shared_intermediate)
        # the router, and the gate of a shared expert
        sparse += self.hidden * (self.experts + (self.shared_intermediate > 0))
        without = self.layers - self.sparse_layers
        return self.layers * self.attention_matrices + without * dense + self.sparse_layers * sparse

    @property
    def _other(self) -> int:
        biases = self.attention_biases + self.mlp_biases + self.layer_norms
        projections = 2 * self.hidden * self.embedding_dim
        positions = self.learned_positions * self.hidden
        return self.layers * biases + self.final_norms + positions + projections


def shape_of(config: dict[str, Any]) -> ModelShape | None:
    """The shape that a config.json describes; None when its model_type is not known here."""
    whole = complete(config)
    if whole is None:
        return None
    kind = str(whole["model_type"])
    return _FAMILIES.get(kind, _like_llama)(whole, _common(whole, kind))


def scratch_config(class_name: str, config: Config, *, vocab_size: int | None) -> Config | None:
    """What config.json a model from scratch would get; None for a class unknown here."""
    kind = CLASSES.get(class_name)
    if kind is None:
        return None
    rows = {} if vocab_size is None else {"vocab_size": vocab_size}
    return {"model_type": kind, **rows, **config}


def typical_shape(num_parameters: int, *, vocab: int = 0) -> ModelShape:
    """A Llama of about so many parameters, where nothing else is known.

    Width is 128 times the depth, as in models of 1 to 70 billion: 12 L (128 L)^2 parameters.
    """
    layers = max(1, round((num_parameters / (12 * 128**2)) ** (1 / 3)))
    hidden = max(64, round((num_parameters / (12 * layers)) ** 0.5 / 64) * 64)
    heads = max(1, hidden // 128)
    # 4 d^2 attention + 3 d f feed-forward, so that the sum is exact up to rounding
    inner = max(1, (num_parameters // layers - 4 * heads * 128 * hidden) // (3 * hidden))
    return ModelShape(
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=128,
        intermediate=inner,
        vocab=vocab,
        tied=True,
    )


def _common(config: Config, kind: str) -> ModelShape:
    hidden, heads = value_of(config, "hidden") or 0, value_of(config, "heads") or 1
    return ModelShape(
        hidden=hidden,
        layers=value_of(config, "layers") or 0,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        intermediate=value_of(config, "intermediate") or 4 * hidden,
        vocab=int(config.get("vocab_size", 0)),
        tied=bool(config.get("tie_word_embeddings")),
        model_type=kind,
    )


def _like_llama(config: Config, shape: ModelShape) -> ModelShape:
    """RMSNorm, rotary positions, gated: Llama, Mistral, Phi-3, Gemma."""
    d, q, kv = shape.hidden, shape.query_width, shape.key_width
    biased = bool(config.get("attention_bias")) and shape.model_type in {"llama", "qwen3", "gemma"}
    # Gemma 2 has norms before and behind both parts of a layer
    norms = 4 if shape.model_type == "gemma2" else 2
    return replace(
        shape,
        attention_biases=(q + 2 * kv + d) * biased,
        mlp_biases=(2 * shape.intermediate + d) * bool(config.get("mlp_bias")),
        layer_norms=norms * d,
        final_norms=d,
    )


def _like_qwen2(config: Config, shape: ModelShape) -> ModelShape:
    shape = _like_llama(config, shape)
    return replace(shape, attention_biases=shape.query_width + 2 * shape.key_width)


def _like_qwen3(config: Config, shape: ModelShape) -> ModelShape:
    # a norm over each query and each key head
    shape = _like_llama(config, shape)
    return replace(shape, layer_norms=2 * shape.hidden + 2 * shape.head_dim)


def _with_experts(config: Config, shape: ModelShape) -> ModelShape:
    experts = value_of(config, "experts") or 0
    step = int(config.get("decoder_sparse_step") or 1)
    dense = set(config.get("mlp_only_layers") or [])
    dense |= {i for i in range(shape.layers) if (i + 1) % step}
    return replace(
        shape,
        experts=experts,
        active_experts=int(config["num_experts_per_tok"]),
        expert_intermediate=int(config.get("moe_intermediate_size") or shape.intermediate),
        shared_intermediate=int(config.get("shared_expert_intermediate_size") or 0),
        dense_layers=len(dense),
    )


def _like_mixtral(config: Config, shape: ModelShape) -> ModelShape:
    return _with_experts(config, _like_llama(config, shape))


def _like_qwen2_moe(config: Config, shape: ModelShape) -> ModelShape:
    return _with_experts(config, _like_qwen2(config, shape))


def _like_qwen3_moe(config: Config, shape: ModelShape) -> ModelShape:
    return _with_experts(config, _like_qwen3(config, shape))


def _like_gpt2(config: Config, shape: ModelShape) -> ModelShape:
    """LayerNorm with bias, biases everywhere, learned positions: GPT-2; GPT-NeoX without them."""
    d, has_positions = shape.hidden, shape.model_type == "gpt2"
    biased = has_positions or bool(config.get("attention_bias", True))
    return replace(
        shape,
        gated=False,
        kv_heads=shape.heads,
        head_dim=d // shape.heads,
        attention_biases=4 * d * biased,
        mlp_biases=shape.intermediate + d,
        layer_norms=4 * d,
        final_norms=2 * d,
        learned_positions=(value_of(config, "positions") or 0) * has_positions,
    )


def _like_opt(config: Config, shape: ModelShape) -> ModelShape:
    d, biased = shape.hidden, bool(config["enable_bias"])
    width = int(config.get("word_embed_proj_dim") or d)
    ends_in_norm = config["do_layer_norm_before"] and not config.get("_remove_final_layer_norm")
    return replace(
        shape,
        gated=False,
        attention_biases=4 * d * biased,
        mlp_biases=(shape.intermediate + d) * biased,
        layer_norms=4 * d,
        final_norms=2 * d * bool(ends_in_norm),
        # two rows in front are never used
        learned_positions=int(config["max_position_embeddings"]) + 2,
        embedding_dim=width if width != d else 0,
    )


def _like_falcon(config: Config, shape: ModelShape) -> ModelShape:
    d, is_new = shape.hidden, bool(config["new_decoder_architecture"])
    heads = int(config.get("num_kv_heads") or shape.heads)
    kv_heads = heads if is_new else 1 if config["multi_query"] else shape.heads
    one_norm = config["parallel_attn"] and (
        not is_new or config.get("num_ln_in_parallel_attn") == 1
    )
    biased = bool(config["bias"])
    return replace(
        shape,
        gated=False,
        kv_heads=kv_heads,
        attention_biases=(2 * d + 2 * kv_heads * shape.head_dim) * biased,
        mlp_biases=(shape.intermediate + d) * biased,
        layer_norms=(2 if one_norm else 4) * d,
        final_norms=2 * d,
    )


_FAMILIES: dict[str, Callable[[Config, ModelShape], ModelShape]] = {
    "qwen2": _like_qwen2,
    "qwen3": _like_qwen3,
    "gpt2": _like_gpt2,
    "gpt_neox": _like_gpt2,
    "opt": _like_opt,
    "falcon": _like_falcon,
    "mixtral": _like_mixtral,
    "qwen2_moe": _like_qwen2_moe,
    "qwen3_moe": _like_qwen3_moe,
}
