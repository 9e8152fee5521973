"""An impruver YAML: data recipe, model, adapter and trainer in one job."""

from __future__ import annotations

import pytest

from clusterlm.importing.draft import Draft
from clusterlm.importing.impruver import draft_impruver
from tests.importing.conftest import Import


def test_a_configuration_becomes_a_job(imports: Import) -> None:
    found = imports("saiga.yaml")
    values = found.values
    assert values["data"]["sources"] == [
        {
            "kind": "instruct",
            "hub": "owner/ru_alpaca",
            "mapping": {"output": "alternative_output"},
        },
        {"kind": "chat", "hub": "owner/ru_saiga", "layout": "dialog", "split": "train[:1000]"},
        {
            "kind": "chat",
            "path": "./data/roleplay.jsonl",
            "layout": "character",
            "add_bos": False,
            "max_tokens": 512,
        },
        {"kind": "instruct", "hub": "owner/reasoning", "mapping": {"reasoning": "reasoning"}},
        {"kind": "chat", "hub": "owner/messages", "layout": "messages"},
    ]
    assert values["data"]["dedup"] == {"near": {"threshold": 0.8}}
    assert values["data"]["validation"] == {"fraction": 0.05}
    assert values["model"]["quantization"] == "nf4"
    assert values["model"]["adapter"]["target_modules"] == ["c_attn", "c_fc", "c_proj"]
    train = values["train"]
    assert (train["mode"], train["precision"], train["warmup"]) == ("adapter", "bf16", 16)
    assert (train["gradient_accumulation"], train["keep_checkpoints"]) == (128, 2)
    assert train["ddp_find_unused_parameters"] is False
    assert "load_best_model_at_end: True: the newest whole" in found.left_out
    assert [p.where for p in found.problems()] == ["data.sources[2].path"]


def test_a_new_model_is_made_from_scratch(imports: Import) -> None:
    found = imports("nanogpt.yaml")
    model = found.values["model"]
    assert model["from_scratch"]["class"] == "GPT2LMHeadModel"
    assert model["from_scratch"]["config"]["n_embd"] == 384
    assert "vocab_size" not in model["from_scratch"]["config"]
    assert model["dtype"] == "bfloat16"
    assert found.values["train"]["lr_scheduler"] == "linear"
    assert found.load().job.data.sources[0].only_target_loss is False  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "key", ["foo", "datasets[0].foo", "model.foo", "lora.foo", "tokenizer.foo"]
)
def test_no_key_is_lost_in_silence(key: str) -> None:
    values = {
        "datasets": [{"name": "a/b"}],
        "model": {"name": "a/b"},
        "lora": {"r": 8},
        "tokenizer": {},
    }
    where, _, last = key.rpartition(".")
    holder = values["datasets"][0] if "[" in where else values.get(where, values)
    holder[last] = 1  # type: ignore[index,call-overload]
    draft = Draft()
    draft_impruver(values, "x", draft)
    assert any(key in what for what, _ in draft.unclear)


def test_a_converter_of_ones_own_is_a_custom_source() -> None:
    draft = Draft()
    datasets = [{"name": "a/b", "converter": "mine.to_messages"}]
    draft_impruver({"datasets": datasets, "model": {"name": "a/b"}}, "x", draft)
    source = draft.get("data.sources")[0]
    assert (source["kind"], source["converter"]) == ("custom", "mine.to_messages")
    assert any("put its file beside the YAML" in why for _, why in draft.unclear)
