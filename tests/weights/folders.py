"""Small models in folders, with the tokenizers that they were made for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

WIDTH = 6


def tokenizer_at(folder: Path, pieces: list[str], added: Sequence[str] = ()) -> Path:
    """A byte-level BPE of single letters and `pieces`, each merged out of the two before it."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(33, 127)]
    vocab = {letter: i for i, letter in enumerate(letters)}
    merges = []
    for piece in pieces:
        merges.append([piece[:-1], piece[-1]])
        vocab[piece] = len(vocab)
    tokens = [
        {"id": len(vocab) + i, "content": text, "special": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for i, text in enumerate(added)
    ]
    plain = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    parts = {
        "version": "1.0",
        "added_tokens": tokens,
        "pre_tokenizer": {"type": "ByteLevel", **plain},
        "decoder": {"type": "ByteLevel", **plain},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }
    (folder / "tokenizer.json").write_text(json.dumps(parts))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "!"}))
    return folder


def model_at(
    folder: Path, rows: int, *, dtype: Any = torch.float32, tied: bool = False, bias: bool = False
) -> Path:
    """A folder of tensors as Llama names them."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(rows)
    tensors = {
        "model.embed_tokens.weight": torch.randn(rows, WIDTH),
        "model.layers.0.self_attn.q_proj.weight": torch.randn(WIDTH, WIDTH),
        # as many rows as the vocabulary, by chance
        "model.layers.0.mlp.up_proj.weight": torch.randn(rows, WIDTH),
    }
    if not tied:
        tensors["lm_head.weight"] = torch.randn(rows, WIDTH)
    if bias:
        tensors["lm_head.bias"] = torch.randn(rows)
    save_file({n: t.to(dtype) for n, t in tensors.items()}, folder / "model.safetensors")
    config = {"vocab_size": rows, "eos_token_id": 0, "tie_word_embeddings": tied}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, read by the library itself."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        # what is loaded is the file itself, mapped: it would change with it
        found |= {name: tensor.clone() for name, tensor in load_file(file).items()}
    return found


def split_in_shards(folder: Path) -> Path:
    """Lay each tensor in a file of its own."""
    tensors = tensors_of(folder)
    (folder / "model.safetensors").unlink()
    places = {name: f"part-{k}.safetensors" for k, name in enumerate(tensors)}
    for name, tensor in tensors.items():
        save_file({name: tensor}, folder / places[name])
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
