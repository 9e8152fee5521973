"""Which tensors have a row for each entry of the vocabulary, by the names of model families."""

from __future__ import annotations

import re
from typing import Any

from clusterlm.errors import WeightsError
from clusterlm.weights.files import Weights

_INPUT = (
    "embed_tokens",  # Llama, Mistral, Qwen, Gemma, Phi, OPT, Mixtral ...
    "wte",  # GPT-2, GPT-J, MPT
    "word_embeddings",  # BLOOM, Falcon, ChatGLM
    "embed_in",  # GPT-NeoX
    "tok_embeddings",  # InternLM 2
    "embeddings",  # Mamba, RWKV
)
_OUTPUT = ("lm_head", "embed_out", "output_layer", "output")
# `output` only at the top: within a layer (attention.output) it is something else
_AT_THE_TOP = "output"
_ROWS = re.compile(r"(?:(?P<above>.*)\.)?(?P<leaf>[^.]+)\.(?P<kind>weight|bias)")


def input_tables(weights: Weights, rows: int) -> list[str]:
    """The embeddings of tokens with `rows` rows."""
    return [n for n in weights.names if _is_table(n, _INPUT) and _height(weights, n) == rows]


def output_tables(weights: Weights, rows: int) -> list[str]:
    """The heads, and their bias; none when the head is tied to the embedding."""
    return [n for n in weights.names if _is_table(n, _OUTPUT) and _height(weights, n) == rows]


def tables_of(weights: Weights, rows: int) -> list[str]:
    """Every table of the vocabulary.

    Raises:
        WeightsError: there is none, one has a type that is no plain number, or there is one that
            is not known here: it would be left behind.
    """
    inputs = [name for name in input_tables(weights, rows) if len(weights.shape(name)) == 2]
    if not inputs:
        raise WeightsError(
            f"no embedding of tokens with {rows:,} rows is among the {len(weights.tensors)} tensors"
            f" (looked for {', '.join(_INPUT)}); resize this model with its own code, and write"
            " model.vocab: keep"
        )
    found = inputs + output_tables(weights, rows)
    for name in weights.names:
        looks_so = re.search("embed|lm_head|vocab", name) and _height(weights, name) == rows
        if looks_so and name not in found:
            raise WeightsError(
                f"{name} has {rows:,} rows too and is no table that is known here; resize this"
                " model with its own code, and write model.vocab: keep"
            )
        if name in found and weights.dtype(name) not in ("F64", "F32", "F16", "BF16"):
            raise WeightsError(f"{name} is {weights.dtype(name)}: a quantized table has no rows")
    return found


def set_rows(config: dict[str, Any], old: int, new: int) -> dict[str, Any]:
    """The config with another number of rows, wherever it says the old one."""
    keys = ("vocab_size", "padded_vocab_size")
    changed: dict[str, Any] = {key: new for key in keys if config.get(key) == old}
    if isinstance(text := config.get("text_config"), dict):
        changed["text_config"] = set_rows(text, old, new)
    return config | changed


def _is_table(name: str, leaves: tuple[str, ...]) -> bool:
    found = _ROWS.fullmatch(name)
    if found is None or found["leaf"] not in leaves:
        return False
    return found["leaf"] != _AT_THE_TOP or not found["above"]


def _height(weights: Weights, name: str) -> int:
    shape = weights.shape(name)
    return shape[0] if shape else 0
