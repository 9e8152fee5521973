"""Defaults of the config classes of transformers, and which model class belongs to which type.

A config.json names only what differs in older files, and `model.from_scratch.config` whatever the
user cares about. The tests compare these values with the installed transformers.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

_LLAMA: Config = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
_QWEN: Config = _LLAMA | {
    "num_key_value_heads": 32,
    "intermediate_size": 22016,
    "vocab_size": 151936,
}
_QWEN_MOE: Config = {
    "hidden_size": 2048,
    "num_hidden_layers": 24,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "decoder_sparse_step": 1,
}
_MISTRAL: Config = _LLAMA | {"num_key_value_heads": 8, "intermediate_size": 14336}

DEFAULTS: dict[str, Config] = {
    "llama": _LLAMA,
    "mistral": _MISTRAL,
    "qwen2": _QWEN,
    "qwen3": _QWEN | {"head_dim": 128},
    "gemma": {
        "hidden_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "intermediate_size": 24576,
        "vocab_size": 256000,
        "tie_word_embeddings": True,
    },
    "gemma2": {
        "hidden_size": 2304,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "intermediate_size": 9216,
        "vocab_size": 256000,
        "tie_word_embeddings": True,
    },
    "phi3": _LLAMA | {"hidden_size": 3072, "intermediate_size": 8192, "vocab_size": 32064},
    "gpt2": {
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 1024,
        "vocab_size": 50257,
        "tie_word_embeddings": True,
    },
    "gpt_neox": {
        "hidden_size": 6144,
        "num_hidden_layers": 44,
        "num_attention_heads": 64,
        "intermediate_size": 24576,
        "vocab_size": 50432,
        "tie_word_embeddings": False,
        "attention_bias": True,
    },
    "opt": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "ffn_dim": 3072,
        "max_position_embeddings": 2048,
        "vocab_size": 50272,
        "tie_word_embeddings": True,
        "enable_bias": True,
        "do_layer_norm_before": True,
    },
    "falcon": {
        "hidden_size": 4544,
        "num_hidden_layers": 32,
        "num_attention_heads": 71,
        "vocab_size": 65024,
        "tie_word_embeddings": True,
        "multi_query": True,
        "new_decoder_architecture": False,
        "parallel_attn": True,
        "bias": False,
    },
    "mixtral": _MISTRAL | {"num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen2_moe": _QWEN_MOE
    | {
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "intermediate_size": 5632,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "num_experts": 60,
        "num_experts_per_tok": 4,
    },
    "qwen3_moe": _QWEN_MOE
    | {
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
    },
}

CLASSES: dict[str, str] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "GemmaForCausalLM": "gemma",
    "Gemma2ForCausalLM": "gemma2",
    "Phi3ForCausalLM": "phi3",
    "GPT2LMHeadModel": "gpt2",
    "GPTNeoXForCausalLM": "gpt_neox",
    "OPTForCausalLM": "opt",
    "FalconForCausalLM": "falcon",
    "MixtralForCausalLM": "mixtral",
    "Qwen2MoeForCausalLM": "qwen2_moe",
    "Qwen3MoeForCausalLM": "qwen3_moe",
}

# the same quantity under the names of GPT-2, OPT, Mixtral's experts, BLOOM and Falcon
NAMES: dict[str, tuple[str, ...]] = {
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "intermediate": ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"),
    "experts": ("num_local_experts", "num_experts"),
    "positions": ("n_positions", "max_position_embeddings"),
}


def complete(config: Config) -> Config | None:
    """The config with the defaults of its model_type under it; None for a type unknown here."""
    defaults = DEFAULTS.get(str(config.get("model_type", "")))
    if defaults is None:
        return None
    aliases = {old: name for name, names in NAMES.items() for old in names}
    given = {aliases.get(key, key) for key, value in config.items() if value is not None}
    # n_embd in the defaults must not stand beside a hidden_size that was given
    missing = {key: v for key, v in defaults.items() if aliases.get(key, key) not in given}
    return missing | {key: value for key, value in config.items() if value is not None}


def value_of(config: Config, what: str) -> int | None:
    """A quantity under whichever name this config has it."""
    for name in NAMES[what]:
        if isinstance(config.get(name), int):
            return int(config[name])
    return None
