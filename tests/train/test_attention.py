"""Documents of a block never see each other: shown for each family of models, or refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from clusterlm.errors import TrainError
from clusterlm.train.attention import choose_attention
from clusterlm.train.flat_rows import lay_rows_flat
from clusterlm.train.isolation import shrink

WIDTHS = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
WINDOW = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
GPT2 = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
NEOX = {key: WIDTHS[key] for key in list(WIDTHS)[:5]}
FAMILIES: dict[str, dict[str, Any]] = {
    "LlamaConfig": WIDTHS,
    "Qwen2Config": {key: value for key, value in WIDTHS.items() if key != "head_dim"},
    "Qwen3Config": WIDTHS,
    "MistralConfig": WIDTHS | {"sliding_window": 4},
    "Gemma2Config": WIDTHS | WINDOW,
    "Gemma3TextConfig": WIDTHS | WINDOW,
    "GPT2Config": GPT2,
    "GPTNeoXConfig": NEOX,
    "MixtralConfig": WIDTHS | {"num_local_experts": 4},
}
# rows of documents of 6 + 5 + 1 and of 12 tokens
LENGTHS = [[6, 5, 1], [12]]
IDS = torch.randint(1, 60, (2, 12), generator=torch.Generator().manual_seed(3))
POSITIONS = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in LENGTHS])


def make_model(family: str, attention: str) -> Any:
    config = getattr(transformers, family)(**FAMILIES[family], use_cache=False)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=weight.shape[-1] ** -0.5)
    return model


def logits_alone(model: Any) -> torch.Tensor:
    rows = [
        torch.cat([model(input_ids=piece[None])["logits"][0] for piece in ids.split(lengths)])
        for ids, lengths in zip(IDS, LENGTHS, strict=True)
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_packed_block_is_as_its_documents_alone(family: str, attention: str) -> None:
    # transformers 5.23 has no sdpa for the softcap of Gemma 2
    if (
        family == "Gemma2Config"
        and not AutoModelForCausalLM._model_mapping[transformers.Gemma2Config]._supports_sdpa
    ):
        with pytest.raises(TrainError, match="does not support"):
            choose(family, "sdpa")
        attention = "eager"
    model = make_model(family, attention)
    packed = model(input_ids=IDS, position_ids=POSITIONS)["logits"]
    alone = logits_alone(model)
    torch.testing.assert_close(packed, alone, atol=1e-4, rtol=1e-4)
    # and it would be seen: one long document has other logits
    together = model(input_ids=IDS)["logits"]
    assert (together - alone)[0].abs().max() > 0.1
    assert choose(family, attention).name == attention
    assert choose(family).name in ("sdpa", "eager")


def choose(family: str, asked: str = "auto", *, isolated: bool = True, **config: Any) -> Any:
    return choose_attention(
        asked,
        on_cpu=True,
        isolated=isolated,
        precision="fp32",
        model_class=None,
        config=getattr(transformers, family)(**(FAMILIES.get(family, {}) | config)),
    )


@pytest.mark.parametrize(
    "family", ["MambaConfig", "BloomConfig", "OPTConfig", "FalconConfig", "GptOssConfig"]
)
def test_models_that_join_documents_are_refused_with_what_to_do(family: str) -> None:
    words = "see each other.*data.isolate_documents: false"
    with pytest.raises(TrainError, match=words):
        choose(family)
    assert choose(family, isolated=False).name in ("sdpa", "eager")


@pytest.mark.parametrize("family", ["Qwen3NextConfig", "DeepseekV3Config", "Lfm2Config"])
def test_a_model_is_tried_with_each_kind_of_layer_that_it_has(family: str) -> None:
    if not hasattr(transformers, family):
        pytest.skip(f"transformers {transformers.__version__} has no {family}")
    kinds = {"layer_types": ["conv", "full_attention"] * 16} if family == "Lfm2Config" else {}
    if family == "DeepseekV3Config":
        assert choose(family).name == "sdpa"
    else:
        with pytest.raises(TrainError, match="see each other"):
            choose(family, **kinds)


@pytest.mark.parametrize(
    ("asked", "words"),
    [("flash_attention_2", "needs a GPU"), ("flex_attention", "no backward pass on the CPU")],
)
def test_what_cannot_run_here_is_refused_and_never_replaced(asked: str, words: str) -> None:
    with pytest.raises(TrainError, match=re.escape(words)):
        choose("LlamaConfig", asked)


def test_a_try_draws_nothing_from_the_training_and_leaves_the_config() -> None:
    config = transformers.LlamaConfig(**WIDTHS)
    before, state = config.to_dict(), torch.random.get_rng_state()
    choose_attention(
        "auto",
        on_cpu=True,
        isolated=True,
        precision="fp32",
        model_class="LlamaForCausalLM",
        config=config,
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert config.to_dict() == before


def test_the_copy_has_a_layer_of_each_kind() -> None:
    config = transformers.Gemma3TextConfig()
    small = shrink(config, {"hidden_size": 64}, "sdpa")
    assert small.layer_types == ["sliding_attention", "full_attention"]
    assert (small.num_hidden_layers, small.hidden_size) == (2, 64)
    assert config.num_hidden_layers > 2


def test_rows_are_laid_flat_with_the_places_where_documents_begin() -> None:
    batch = {"input_ids": IDS, "position_ids": POSITIONS, "labels": IDS, "other": 1}
    flat = lay_rows_flat(batch)
    assert flat["cu_seq_lens_q"].tolist() == [0, 6, 11, 12, 24]
    assert flat["cu_seq_lens_q"].dtype == torch.int32
    assert flat["max_length_q"] == flat["max_length_k"] == 12
    assert flat["labels"].shape == flat["input_ids"].shape == (1, 24)
    assert flat["other"] == 1


@torch.no_grad()
def test_flat_rows_reach_the_kernel_through_the_model(varlen: str) -> None:
    model = make_model("LlamaConfig", "sdpa")
    model.config._attn_implementation = varlen
    batch = {"input_ids": IDS, "position_ids": POSITIONS}
    flat = model(**lay_rows_flat(batch))["logits"].reshape(2, 12, -1)
    torch.testing.assert_close(flat, logits_alone(make_model("LlamaConfig", "sdpa")))
