"""Small models and adapters of every kind that can be merged, made by peft itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

ROWS = 64
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}

# adapter kind -> (base, settings of peft)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("llama", {"target_modules": "all-linear"}),
    "rslora": ("llama", {"target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
    "dora": ("llama", {"target_modules": ["q_proj", "up_proj"], "use_dora": True}),
    "dora of an embedding": ("llama", {"target_modules": ["embed_tokens"], "use_dora": True}),
    "patterns": (
        "llama",
        {
            "target_modules": ["q_proj", "v_proj"],
            "rank_pattern": {"layers.1.self_attn.q_proj": 7, "v_proj": 3},
            "alpha_pattern": {r"layers\.0\..*v_proj": 9, "q_proj": 5},
        },
    ),
    "bias all": ("biased", {"target_modules": ["q_proj"], "bias": "all"}),
    "bias lora_only": ("biased", {"target_modules": ["q_proj"], "bias": "lora_only"}),
    "lora_bias": ("biased", {"target_modules": ["q_proj"], "lora_bias": True}),
    "Conv1D": ("gpt2", {"target_modules": ["c_attn", "c_proj"]}),
    "Conv1D with DoRA": ("gpt2", {"target_modules": ["c_attn"], "use_dora": True}),
    "embedding": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "modules_to_save": (
        "llama",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
    "norms saved": ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}),
    "rows": ("llama", {"target_modules": ["q_proj"], "trainable_token_indices": [3, 60]}),
    "tied, rows": ("tied", {"target_modules": ["q_proj"], "trainable_token_indices": [3, 60]}),
    "tied, layers only": ("tied", {"target_modules": ["q_proj"]}),
    "tied, head saved": ("tied", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "tied, table saved": (
        "tied",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ),
    "tied, both saved": (
        "tied",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
    "tied, kept tied": (
        "tied",
        {
            "target_modules": ["q_proj"],
            "modules_to_save": ["embed_tokens"],
            "ensure_weight_tying": True,
        },
    ),
    "tied, LoRA of the head": ("tied", {"target_modules": ["lm_head", "q_proj"]}),
    "gpt2, head saved": ("gpt2", {"target_modules": ["c_attn"], "modules_to_save": ["lm_head"]}),
}
UNTIED = {
    "tied, head saved",
    "tied, table saved",
    "tied, both saved",
    "tied, LoRA of the head",
    "gpt2, head saved",
}


def make_base(
    folder: Path, kind: str, *, rows: int = ROWS, dtype: torch.dtype | None = None
) -> Any:
    """A base saved in `folder`, and in memory."""
    torch.manual_seed(1)
    if kind == "gpt2":
        model: Any = GPT2LMHeadModel(
            GPT2Config(vocab_size=ROWS, n_embd=32, n_layer=2, n_head=4, n_positions=64)
        )
    else:
        config = LlamaConfig(
            vocab_size=ROWS,
            max_position_embeddings=64,
            tie_word_embeddings=kind == "tied",
            attention_bias=kind == "biased",
            # hidden states of size 1, so that a wrong merge is seen
            initializer_range=0.2,
            **SMALL,
            **HEADS,
        )
        model = LlamaForCausalLM(config)
    if dtype:
        model = model.to(dtype)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return model


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Some characters and words; what it does not know is token 0."""
    letters = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz .,*=+0123456789"]
    vocab = {token: k for k, token in enumerate(letters)}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def make_adapter(folder: Path, base: Path, model: Any, settings: dict[str, Any]) -> Path:
    """An adapter over `model`, every weight of it moved as by a training, saved in `folder`."""
    model.name_or_path = str(base)
    config = LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **settings)
    adapted = get_peft_model(model, config)
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                size = 0.02 if "magnitude" in name else 0.1
                parameter.add_(torch.randn_like(parameter) * size)
    adapted.save_pretrained(folder)
    return folder
