"""What does not fit is said in words, before anything is trained."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import transformers

from clusterlm.errors import TrainError
from clusterlm.spec.job import Job
from clusterlm.train import hub
from clusterlm.train.model import make_model
from tests.train.launching import TINY


def make(model: dict[str, Any], tokenizer: Any, *, block_size: int = 32, **train: Any) -> Any:
    job = Job.model_validate({"name": "t", "model": model, "train": train})
    return make_model(job, block_size=block_size, tokenizer=tokenizer)


def from_scratch(**config: Any) -> dict[str, Any]:
    return {"from_scratch": TINY | {"config": TINY["config"] | config}}


def test_a_new_model_takes_vocabulary_and_special_tokens_from_the_tokenizer(
    tokenizer: Any,
) -> None:
    model = make(from_scratch(), tokenizer, block_size=4096)
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.config.max_position_embeddings == 4096
    assert model.dtype == torch.float32


def test_the_seed_decides_the_new_weights(tokenizer: Any) -> None:
    def weights(seed: int) -> torch.Tensor:
        model = make(from_scratch(), tokenizer, seed=seed)
        return model.model.embed_tokens.weight.detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_a_class_with_other_names_for_the_same_keys_works(tokenizer: Any) -> None:
    config = {"n_embd": 32, "n_layer": 1, "n_head": 2}
    model = make({"from_scratch": {"class": "GPT2LMHeadModel", "config": config}}, tokenizer)
    assert model.config.hidden_size == 32


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"from_scratch": TINY | {"class": "LamaForCausalLM"}}, "did you mean `LlamaForCausalLM`"),
        (from_scratch(hiden_size=3), "no key hiden_size; did you mean `hidden_size`"),
        (from_scratch(num_attention_heads=5), "model.from_scratch.config: .*attention heads"),
        (from_scratch(vocab_size=100), "knows 100 tokens, the tokenizer of the data has 400"),
        (from_scratch(max_position_embeddings=16), "data.block_size 32 is more than the 16"),
        ({"name": "/not/there"}, "the folder /not/there is not on this node"),
        ({"name": "a/b/c"}, "the folder a/b/c is not on this node"),
    ],
)
def test_mistakes_are_named(model: dict[str, Any], words: str, tokenizer: Any) -> None:
    if "heads" in words and int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("transformers 4 makes such a model")
    with pytest.raises(TrainError, match=words):
        make(model, tokenizer)


def test_a_folder_without_a_model_is_named(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(TrainError, match="holds no config.json"):
        make({"name": str(tmp_path)}, tokenizer)


def test_a_hub_model_without_network_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tokenizer: Any
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TrainError, match="hf download nobody/nothing --local-dir FOLDER"):
        make({"name": "nobody/nothing"}, tokenizer)


def test_a_hub_that_does_not_answer_is_not_asked_again_and_again(
    monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    # a refused connection: the client of the hub tries it five times, with pauses
    monkeypatch.setattr(hub, "HUB", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub, "getproxies", dict)
    started = time.monotonic()
    with pytest.raises(TrainError, match="hf download nobody/nothing --local-dir FOLDER"):
        make({"name": "nobody/nothing"}, tokenizer)
    assert time.monotonic() - started < 10


def test_a_folder_is_loaded_and_its_limits_hold(tiny_model: Path, tokenizer: Any) -> None:
    model = {"name": str(tiny_model)}
    assert make(model, tokenizer).config.num_hidden_layers == 2
    with pytest.raises(TrainError, match="data.block_size 65 is more than the 64 positions"):
        make(model, tokenizer, block_size=65)


def test_lora_trains_its_matrices_and_nothing_else(tiny_model: Path, tokenizer: Any) -> None:
    model = {"name": str(tiny_model), "adapter": {"r": 2}}
    adapted = make(model, tokenizer, mode="adapter", precision="bf16")
    trained = {name: p.dtype for name, p in adapted.named_parameters() if p.requires_grad}
    frozen = {p.dtype for p in adapted.parameters() if not p.requires_grad}
    # 2 layers x 7 linear layers x A and B
    assert len(trained) == 28
    assert all(".lora_" in name for name in trained)
    assert set(trained.values()) == {torch.float32}
    assert frozen == {torch.bfloat16}


@pytest.mark.parametrize("key", ["target_modules", "modules_to_save"])
def test_lora_names_that_match_no_layer_are_named(
    key: str, tiny_model: Path, tokenizer: Any
) -> None:
    adapter = {"target_modules": ["q_proj"]} | {key: ["q_proj", "query"]}
    model = {"name": str(tiny_model), "adapter": adapter}
    with pytest.raises(TrainError, match=rf"{key}: no layer is named query; .*down_proj, .*v_proj"):
        make(model, tokenizer, mode="adapter")
