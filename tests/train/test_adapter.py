"""Every kind of adapter: what it trains, and that base and saved adapter are the trained model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clusterlm.errors import TrainError
from clusterlm.train.adapter_start import doubled_rank
from tests.train.adapting import adapted, logits, reopened, save, train_a_little
from tests.train.forked import Forks
from tests.train.launching import TINY, Run

PATTERNS = {
    "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 6},
    "alpha_pattern": {"q_proj": 3},
}
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"method": "dora"},
    "rslora": {"rslora": True, **PATTERNS},
    "gaussian": {"init": "gaussian", "exclude_modules": ["down_proj"]},
    "orthogonal": {"init": "orthogonal"},
    "pissa": {"init": "pissa", **PATTERNS, "modules_to_save": ["lm_head"]},
    "pissa, rslora, dora": {"init": "pissa_niter_16", "rslora": True, "method": "dora", **PATTERNS},
    "olora": {"init": "olora"},
    "eva": {"init": "eva"},
    "bias": {"bias": "all"},
    "whole layers": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "tokens": {"trainable_tokens": [7, 3, 399]},
}


@pytest.fixture(scope="module")
def tied_model(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tied")
    sizes = TINY["config"] | {"tie_word_embeddings": True, "attention_bias": True}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tied", [False, True], ids=["apart", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_base_and_saved_adapter_are_the_trained_model(
    kind: str, tied: bool, tmp_path: Path, tiny_model: Path, tied_model: Path, tokenizer: Any
) -> None:
    base = tied_model if tied else tiny_model
    model = adapted(base, tokenizer, {"r": 4, **KINDS[kind]})
    before = logits(reopened_base(base))
    torch.testing.assert_close(logits(model), before, rtol=1e-3, atol=1e-4)
    train_a_little(model)
    trained = logits(model)
    assert (trained - before).abs().max() > 0.01
    torch.testing.assert_close(
        logits(reopened(base, save(model, tmp_path / "saved"))), trained, rtol=1e-3, atol=1e-4
    )


def reopened_base(base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def test_ranks_and_scales_are_those_of_the_patterns(tiny_model: Path, tokenizer: Any) -> None:
    model = adapted(tiny_model, tokenizer, {"r": 4, "alpha": 8, **PATTERNS})
    layers = model.base_model.model.model.layers
    assert [layer.self_attn.q_proj.r["default"] for layer in layers] == [2, 2]
    assert [layer.mlp.up_proj.r["default"] for layer in layers] == [4, 6]
    assert layers[0].self_attn.q_proj.scaling["default"] == 3 / 2
    assert layers[1].mlp.up_proj.scaling["default"] == 8 / 6
    model = adapted(tiny_model, tokenizer, {"r": 4, "alpha": 8, "rslora": True})
    assert model.base_model.model.model.layers[0].mlp.up_proj.scaling["default"] == 8 / 2


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ({"rank_pattern": {"qproj": 2}}, "rank_pattern: qproj is no layer .* down_proj, .*v_proj"),
        ({"alpha_pattern": {"lm_head": 2}}, "alpha_pattern: lm_head is no layer that gets"),
        ({"exclude_modules": ["query"]}, "exclude_modules: no layer is named query"),
        ({"trainable_tokens": [5, 400]}, "400 is no row of the embedding, which has 400"),
        ({"init": "orthogonal", "r": 3}, "rank to be even"),
        ({"continue_from": "/nowhere"}, "/nowhere holds no adapter_config.json"),
        ({"trainable_tokens": "new"}, "cannot be known: .* list the ids"),
    ],
)
def test_what_does_not_fit_is_named(
    adapter: dict[str, Any], words: str, tiny_model: Path, tokenizer: Any
) -> None:
    with pytest.raises(TrainError, match=re.compile(words, re.DOTALL)):
        adapted(tiny_model, tokenizer, adapter)


@pytest.mark.parametrize("start", ["^model.", "model.", ""])
def test_a_pattern_may_name_a_layer_from_the_beginning(
    start: str, tiny_model: Path, tokenizer: Any
) -> None:
    layer = "layers.0.self_attn.q_proj"
    model = adapted(tiny_model, tokenizer, {"r": 4, "rank_pattern": {f"{start}{layer}": 2}})
    ranks = {name: part.r["default"] for name, part in model.named_modules() if hasattr(part, "r")}
    assert ranks.pop(f"base_model.model.model.{layer}") == 2
    assert set(ranks.values()) == {4}


def test_the_names_that_are_proposed_are_names_that_count(tiny_model: Path, tokenizer: Any) -> None:
    with pytest.raises(TrainError) as caught:
        adapted(tiny_model, tokenizer, {"rank_pattern": {"nope": 2}})
    proposed = str(caught.value).rpartition(" ")[2]
    assert proposed == "model.layers.0.self_attn.q_proj"
    # with peft's own words before it peft would find nothing, and say nothing
    with pytest.raises(TrainError, match="no layer that gets an adapter"):
        adapted(tiny_model, tokenizer, {"rank_pattern": {f"model.{proposed}": 2}})


def test_a_tied_matrix_that_is_saved_whole_stays_one(tied_model: Path, tokenizer: Any) -> None:
    lines: list[str] = []
    model = adapted(tied_model, tokenizer, {"modules_to_save": ["lm_head"]}, lines=lines)
    train_a_little(model)
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    assert torch.equal(first.weight, last.weight)
    assert any("one matrix; they are trained as one and stay tied" in line for line in lines)


def test_what_is_trained_is_float32_beside_frozen_weights_in_bf16(
    tiny_model: Path, tokenizer: Any
) -> None:
    adapter = {"r": 2, "modules_to_save": ["lm_head"], "target_modules": ["q_proj", "embed_tokens"]}
    model = adapted(tiny_model, tokenizer, adapter, train={"precision": "bf16"})
    trained = {p.dtype for p in model.parameters() if p.requires_grad}
    assert trained == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.float32, torch.bfloat16}


def test_new_tokens_are_those_behind_the_models_own(tied_model: Path, tokenizer: Any) -> None:
    from transformers import AutoTokenizer

    longer = AutoTokenizer.from_pretrained(tied_model)
    with pytest.raises(TrainError, match="no entry that the model's own has not"):
        adapted(tied_model, longer, {"trainable_tokens": "new"})
    # the model has room for them: rows that its own tokenizer never used
    short = AutoTokenizer.from_pretrained(tied_model)
    assert len(short) == 400
    longer.add_tokens(["<new-a>", "<new-b>"])
    with pytest.raises(TrainError, match="knows 400 tokens, the tokenizer of the data has 402"):
        adapted(tied_model, longer, {"trainable_tokens": "new"})


def test_new_tokens_of_a_model_with_spare_rows_are_trained(tmp_path: Path, tokenizer: Any) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    sizes = TINY["config"]
    LlamaForCausalLM(LlamaConfig(vocab_size=416, **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    longer = AutoTokenizer.from_pretrained(tmp_path)
    longer.add_tokens(["<new-a>", "<new-b>"])
    model = adapted(tmp_path, longer, {"trainable_tokens": "new", "target_modules": ["q_proj"]})
    trained = {n: tuple(p.shape) for n, p in model.named_parameters() if "tokens_delta" in n}
    # input embedding and output head are two matrices here
    assert list(trained.values()) == [(2, 32), (2, 32)]


def test_a_resized_model_says_where_its_new_rows_begin(tmp_path: Path, tokenizer: Any) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from clusterlm.spec.model import Model
    from clusterlm.train.new_tokens import choose_tokens

    config = LlamaConfig(vocab_size=400, **TINY["config"])
    asked = Model.model_validate({"name": str(tmp_path), "adapter": {"trainable_tokens": "new"}})
    (tmp_path / "DONE").write_text(json.dumps({"num_old": 397, "files": {}}))
    assert choose_tokens(asked, LlamaForCausalLM(config), tokenizer) == [397, 398, 399]


def test_an_adapter_is_gone_on_with(tmp_path: Path, tiny_model: Path, tokenizer: Any) -> None:
    first = adapted(tiny_model, tokenizer, {"r": 4, "alpha": 7, "init": "pissa"})
    train_a_little(first)
    folder = save(first, tmp_path / "first")
    again = adapted(tiny_model, tokenizer, {"continue_from": str(folder)})
    torch.testing.assert_close(logits(again), logits(first), rtol=1e-3, atol=1e-4)
    trained = [n for n, p in again.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)
    train_a_little(again)
    saved = save(again, tmp_path / "again")
    torch.testing.assert_close(logits(reopened(tiny_model, saved)), logits(again))
    # twice 4 of pissa, and not doubled once more
    assert json.loads((saved / "adapter_config.json").read_text())["r"] == 8
    shapes = {tuple(t.shape) for n, t in load_file(saved / "adapter_model.safetensors").items()}
    assert (8, 32) in shapes


def test_twice_the_rank_has_the_same_scale() -> None:
    config = {"r": 4, "lora_alpha": 6, "rank_pattern": {"q": 2}, "alpha_pattern": {"k": 3}}
    plain = doubled_rank(config)
    assert plain["lora_alpha"] / plain["r"] == 6 / 4
    assert plain["lora_alpha"] / plain["rank_pattern"]["q"] == 6 / 2
    assert plain["alpha_pattern"]["k"] / plain["r"] == 3 / 4
    root = doubled_rank(config | {"use_rslora": True})
    assert root["lora_alpha"] / root["r"] ** 0.5 == pytest.approx(6 / 4**0.5)
    assert root["alpha_pattern"]["k"] / root["r"] ** 0.5 == pytest.approx(3 / 4**0.5)


def test_quantization_without_a_gpu_is_told_before_weights_are_read(
    tiny_model: Path, tokenizer: Any
) -> None:
    with pytest.raises(TrainError, match="nf4 needs a GPU, and this training runs on the CPU"):
        adapted(tiny_model, tokenizer, {}, quantization="nf4")


@pytest.mark.parametrize("splits", [False, True])
def test_4_bit_weights_are_stored_as_what_is_split_with_them(splits: bool) -> None:
    from clusterlm.train.quantized import bits_and_bytes

    config = bits_and_bytes("nf4", precision="bf16", splits_weights=splits)
    assert config.bnb_4bit_quant_type == "nf4"
    assert config.bnb_4bit_use_double_quant is True
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert config.bnb_4bit_quant_storage == (torch.bfloat16 if splits else torch.uint8)
    assert bits_and_bytes("int8", precision="bf16", splits_weights=False).load_in_8bit is True


@pytest.mark.parametrize("init", ["pissa", "eva"])
def test_two_ranks_resume_an_adapter_that_began_from_the_weights_or_the_data(
    init: str, make_run: Callable[..., Run], forks: Forks, tiny_model: Path
) -> None:
    adapter = {"r": 4, "init": init, "target_modules": ["q_proj", "down_proj"]}
    more = {"mode": "adapter", "max_steps": 4, "save_steps": 2}
    run = make_run(model={"name": str(tiny_model), "adapter": adapter}, train=more)
    assert run.train_forked(forks) == [0, 0], run.output
    straight = run.losses()
    saved = load_file(run.root / "model" / "adapter_model.safetensors")
    resume = str(run.checkpoint(2))
    assert run.train_forked(forks, attempt=2, resume=resume) == [0, 0], run.output
    assert run.losses() == straight
    again = load_file(run.root / "model" / "adapter_model.safetensors")
    assert {name for name in saved if not torch.equal(saved[name], again[name])} == set()
    # pissa is saved as what it became less what it was
    ranks = {t.shape[0] for name, t in saved.items() if ".lora_A." in name}
    assert ranks == ({8} if init == "pissa" else {4})
