"""Shapes against transformers' own models on the meta device, and FLOPs against counting."""

from __future__ import annotations

from typing import Any

import pytest

from clusterlm.plan.families import CLASSES, DEFAULTS
from clusterlm.plan.flops import hardware_flops_per_token, model_flops_per_token, peak_flops
from clusterlm.plan.gpus import find_gpu
from clusterlm.plan.shape import ModelShape, scratch_config, shape_of, typical_shape

SMALL: dict[str, list[dict[str, Any]]] = {
    "llama": [{}, {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 2}],
    "mistral": [{"head_dim": 48}, {"tie_word_embeddings": True}],
    "qwen2": [{"num_key_value_heads": 2}],
    "qwen3": [{"num_key_value_heads": 2}, {"attention_bias": True, "head_dim": 16}],
    "gemma": [{}, {"tie_word_embeddings": False}],
    "gemma2": [{}],
    "phi3": [{"pad_token_id": 0}],
    "gpt2": [{}, {"n_inner": 100}],
    "gpt_neox": [{}, {"attention_bias": False, "tie_word_embeddings": True}],
    "opt": [{}, {"word_embed_proj_dim": 32}, {"enable_bias": False}],
    "falcon": [
        {},
        {"bias": True, "multi_query": False, "parallel_attn": False},
        {"new_decoder_architecture": True, "num_kv_heads": 2},
    ],
    "mixtral": [{"num_local_experts": 4, "num_key_value_heads": 2}],
    "qwen2_moe": [{"num_experts": 4, "decoder_sparse_step": 2}],
    "qwen3_moe": [{"num_experts": 4, "mlp_only_layers": [1]}],
}
CASES = [(kind, extra) for kind, extras in SMALL.items() for extra in [None, *extras]]


def count(config: Any) -> int:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())


@pytest.mark.parametrize(("kind", "extra"), CASES, ids=str)
def test_every_parameter_of_a_known_model_is_counted(
    kind: str, extra: dict[str, Any] | None
) -> None:
    from transformers import CONFIG_MAPPING

    small = {"num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 4}
    values = {"num_hidden_layers": 2} if extra is None else small | extra
    config = CONFIG_MAPPING[kind](**values)
    expected = count(config)
    for given in ({"model_type": kind, **values}, config.to_dict()):
        shape = shape_of(given)
        assert shape is not None
        assert shape.num_parameters == expected


def test_defaults_are_those_of_transformers() -> None:
    import transformers
    from transformers import CONFIG_MAPPING

    for kind, defaults in DEFAULTS.items():
        config = CONFIG_MAPPING[kind]()
        found = {key: getattr(config, key) for key in defaults}
        assert found == defaults, kind
    for name, kind in CLASSES.items():
        assert getattr(transformers, name).config_class.model_type == kind


def test_real_models_have_their_known_sizes() -> None:
    llama = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    }
    shape = shape_of(llama)
    assert shape is not None
    assert shape.num_parameters == 8_030_261_248
    qwen = {
        "model_type": "qwen3_moe",
        "hidden_size": 4096,
        "num_hidden_layers": 94,
        "num_attention_heads": 64,
        "head_dim": 128,
        "moe_intermediate_size": 1536,
    }
    shape = shape_of(qwen)
    assert shape is not None
    assert round(shape.num_parameters / 1e9) == 235
    assert round(shape.num_active / 1e9) == 22


def test_of_an_unknown_type_nothing_is_guessed() -> None:
    assert shape_of({"model_type": "mamba", "hidden_size": 64}) is None
    assert shape_of({}) is None
    assert scratch_config("my_model.Net", {}, vocab_size=7) is None


def test_a_model_from_scratch_takes_its_rows_from_the_tokenizer_unless_it_says_so() -> None:
    assert scratch_config("GPT2LMHeadModel", {"n_embd": 8}, vocab_size=7) == {
        "model_type": "gpt2",
        "vocab_size": 7,
        "n_embd": 8,
    }
    given = scratch_config("LlamaForCausalLM", {"vocab_size": 9}, vocab_size=7)
    assert given is not None
    assert given["vocab_size"] == 9


@pytest.mark.parametrize("size", [30_000_000, 7_000_000_000, 235_000_000_000])
def test_a_typical_shape_has_the_size_asked_for(size: int) -> None:
    assert typical_shape(size).num_parameters == pytest.approx(size, rel=0.03)


TINY = ModelShape(
    hidden=8, layers=2, heads=2, kv_heads=2, head_dim=4, intermediate=16, vocab=10, tied=True
)


def test_flops_of_a_token_are_six_of_each_element_and_four_when_frozen() -> None:
    matrices = 2 * (4 * 64 + 3 * 8 * 16)
    attention = 3 * 2 * 4 * 8 * 16 / 2
    assert model_flops_per_token(TINY, block_size=16, mode="full") == (
        6 * (matrices + 80) + attention
    )
    assert model_flops_per_token(TINY, block_size=16, mode="adapter") == (
        4 * (matrices + 80) + attention
    )
    assert model_flops_per_token(TINY, block_size=16, mode="embeddings") == (
        4 * matrices + 6 * 80 + attention
    )


def test_short_documents_and_recomputing_change_the_count() -> None:
    whole = model_flops_per_token(TINY, block_size=64, mode="full")
    short = model_flops_per_token(TINY, block_size=64, mode="full", mean_document=16)
    assert whole - short == 3 * 2 * 4 * 8 * (64 - 16) / 2
    more = hardware_flops_per_token(TINY, block_size=64, mode="full", recomputed=1.0)
    assert more - whole == pytest.approx(2 * TINY.num_active_matrices + 2 * 4 * 8 * 32)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("Tesla V100-SXM2-32GB", None),
        ("cpu", None),
    ],
)
def test_peaks_are_found_by_name(name: str, peak: float | None) -> None:
    assert peak_flops(name, "bf16") == peak


def test_a_name_that_leaves_the_memory_open_still_has_a_speed() -> None:
    assert find_gpu("a100") is None
    assert peak_flops("a100", "bf16") == 312e12
    assert peak_flops("Tesla V100-SXM2", "fp16") == 125e12
    assert [gpu.name for gpu in (find_gpu("a100-80"), find_gpu("A100_80g")) if gpu] == [
        "A100 80 GB",
        "A100 80 GB",
    ]
