"""What a model's files say of its layers: never believed where it may not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clusterlm.spec.weight_names import (
    SAME_NAMES,
    DamagedError,
    read_shapes,
    read_weight_names,
)
from tests.spec.conftest import WEIGHTS, Load, write_weights

NOPE = {
    "train.mode": "adapter",
    "model.from_scratch": ...,
    "model.adapter": {"target_modules": ["nope"]},
}


def test_names_and_shapes_are_those_of_the_file(folder: Path) -> None:
    write_weights(folder / "m", cut=0)
    assert read_weight_names(str(folder / "m")) == {k: tuple(v) for k, v in WEIGHTS.items()}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x10",
        (2**40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (3).to_bytes(8, "little") + b"{]}",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (11).to_bytes(8, "little") + b'{"a": true}',
        (2).to_bytes(8, "little") + b"{}" + b"more",
    ],
)
def test_what_is_no_whole_file_is_told(folder: Path, content: bytes) -> None:
    (folder / "x.safetensors").write_bytes(content)
    with pytest.raises(DamagedError, match=r"x\.safetensors"):
        read_shapes(str(folder / "x.safetensors"))


def test_an_index_that_names_what_is_not_there_is_told(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    for text, says in [
        ('{"weight_map": {"a": "b.safetensors"}}', "b.safetensors is missing"),
        ('{"weight_map": {"a": "../b"}}', "elsewhere"),
        ("{", "is no index"),
    ]:
        index.write_text(text)
        with pytest.raises(DamagedError, match=says):
            read_weight_names(str(folder))


def test_nothing_is_said_where_files_may_have_other_names(load: Load, folder: Path) -> None:
    write_weights(folder / "experts", cut=0, model_type="mixtral")
    (folder / "pickled").mkdir()
    (folder / "pickled" / "config.json").write_text('{"model_type": "llama"}')
    for name in ("./experts", "./pickled", "owner/name"):
        assert load({"model.name": name, **NOPE}).job.model


@pytest.mark.parametrize("model_type", SAME_NAMES)
def test_known_families_are_saved_under_the_names_in_memory(
    tmp_path: Path, model_type: str
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    small: dict[str, Any] = {
        **dict.fromkeys(("hidden_size", "n_embd", "word_embed_proj_dim"), 8),
        **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim"), 8),
        **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head"), 2),
        **dict.fromkeys(("num_hidden_layers", "n_layer"), 1),
        "vocab_size": 16,
        "head_dim": 4,
        "pad_token_id": 0,
        "max_position_embeddings": 8,
    }
    config = AutoConfig.for_model(model_type)
    for key, value in small.items():
        if hasattr(config, key):
            setattr(config, key, value)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1]
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    saved = read_weight_names(str(tmp_path))
    named = dict(model.named_parameters(remove_duplicate=False))
    assert saved
    assert set(saved) <= set(named)
    assert {id(named[name]) for name in saved} == {id(weight) for weight in named.values()}
