"""What the forward pass keeps for the backward pass, per token, as transformers' layers do it.

Widths: d of the model, q and k of all query and key heads, f of the feed-forward part. e is 2 bytes
in bf16 and fp16, 4 in fp32. A layer like Llama's keeps, each tensor once:

    norms, two of    input in fp32 4d, normalised e d, scaled e d   (Liger: input, output 2e d)
    attention        query e q, key and value e 2k, output e q, log-sums 4 per head
                     (behind a mask, SDPA repeats keys and values up to the queries: e 2q)
    feed-forward     gate, its SiLU, up, their product 4e f         (Liger: gate, up 2e f)

With float32 weights under autocast the residual stream is float32, and each product keeps its own
2-byte copy of its input: 26 d instead of the norms' 16 d. A frozen matrix keeps no input, the
adapter on it does; a frozen norm does not keep the normalised one. Found by measuring; see
tests/plan/test_measured.py.
"""

from __future__ import annotations

from clusterlm.plan.setup import Setup

# tanh-GELU written out in Python (GPT-2): six tensors where SiLU and its product have four
GELU_TENSORS = {"gpt2": 6.0}


def layer_bytes(setup: Setup) -> float:
    """Kept by one layer whose activations are not recomputed."""
    return setup.tokens * (_norms(setup) + _attention(setup) + _feed_forward(setup)) + _scores(
        setup
    )


def kept_bytes(setup: Setup) -> float:
    """By all layers at the end of the forward pass; a recomputed one keeps its input alone."""
    layers = setup.shape.layers
    recomputed = layers // setup.recompute_every if setup.recompute_every else 0
    inputs = recomputed * setup.tokens * setup.shape.hidden * _stream_bytes(setup)
    whole = (layers - recomputed) * layer_bytes(setup)
    return inputs + (0 if setup.offload_activations else whole)


def mask_bytes(setup: Setup) -> float:
    """The mask that keeps documents apart, one for all layers: T^2 per block, as bool and e."""
    if setup.attention == "linear":
        return 0.0
    return setup.micro_batch * setup.block_size**2 * (1 + setup.compute_bytes)


def backward_bytes(setup: Setup) -> float:
    """Gradients under way in one layer, 2f + 4d, and its activations when they are recomputed."""
    shape = setup.shape
    flowing = setup.tokens * setup.compute_bytes * (2 * _inner(setup) + 4 * shape.hidden)
    return flowing + (layer_bytes(setup) if setup.recompute_every else 0)


def logits_bytes(setup: Setup) -> float:
    """When the loss is computed: 12 bytes for each token and entry of the vocabulary.

    Log-probabilities, the gradient of the loss and that of the logits are float32 at once. Liger
    goes through chunks of d/V of the tokens and keeps the gradient of the head instead.
    """
    shape, tokens = setup.shape, setup.tokens
    if setup.liger:
        return tokens * shape.hidden * 12 + shape.num_head * setup.compute_bytes
    return 12.0 * tokens * shape.vocab


def _stream_bytes(setup: Setup) -> int:
    """Of a number in the residual stream."""
    return 4 if setup.autocasts else setup.compute_bytes


def _inner(setup: Setup) -> float:
    """Width of the feed-forward part that a token goes through, an average over the layers."""
    shape = setup.shape
    if not shape.experts:
        return shape.intermediate
    sparse = shape.active_experts * shape.expert_intermediate + shape.shared_intermediate
    dense = shape.dense_layers * shape.intermediate
    return (dense + shape.sparse_layers * sparse) / shape.layers


def _norms(setup: Setup) -> float:
    shape, d, e = setup.shape, setup.shape.hidden, setup.compute_bytes
    stream = _stream_bytes(setup)
    if not shape.gated:
        # LayerNorm is one operation: its input and its output
        return 2 * d * (stream + e)
    is_frozen = setup.mode in {"adapter", "embeddings"}
    inside = d * (stream if setup.liger else 4 + (0 if is_frozen else stream))
    norms = 4 if shape.model_type == "gemma2" else 2
    over_heads = 0.0
    if shape.model_type.startswith("qwen3"):
        over_heads = (4 + e) * (shape.query_width + shape.key_width)
    return norms * inside + over_heads + _inputs_of_matrices(setup) * e * d


def _inputs_of_matrices(setup: Setup) -> int:
    """Copies of the norms' outputs: one each, or one for query, key, value, gate and up."""
    if setup.mode == "embeddings":
        return 0
    casts = setup.compute_bytes == 2 and (setup.autocasts or setup.mode == "adapter")
    return 5 if casts else 2


def _attention(setup: Setup) -> float:
    shape, e = setup.shape, setup.compute_bytes
    repeats = setup.attention == "mask" and shape.gated
    keys = shape.query_width if repeats else shape.key_width
    own_input = e * shape.query_width if setup.mode == "adapter" and e == 2 else 0
    return e * (2 * shape.query_width + 2 * keys) + 4 * shape.heads + own_input


def _feed_forward(setup: Setup) -> float:
    shape, e = setup.shape, setup.compute_bytes
    tensors = GELU_TENSORS.get(shape.model_type, 4.0 if shape.gated else 2.0)
    if setup.liger and shape.gated:
        tensors = 2.0
    if setup.mode == "embeddings":
        tensors -= 1
    dispatched = shape.active_experts * shape.hidden * 2 if shape.experts else 0
    adapters = setup.adapter_linears * setup.rank * e * (3 if setup.is_dora else 1)
    # DoRA scales what the matrix and the adapter gave, so each of its layers keeps both outputs:
    # peft's DoraLinearLayer.forward
    dora = 2 * e * setup.adapter_outputs if setup.is_dora else 0
    return e * (tensors * _inner(setup) + dispatched) + adapters + dora


def _scores(setup: Setup) -> float:
    """Eager attention keeps the square: float32 and e for each pair of tokens and head."""
    if setup.attention != "square":
        return 0.0
    pairs = setup.micro_batch * setup.block_size**2 * setup.shape.heads
    return pairs * (4 + setup.compute_bytes)
