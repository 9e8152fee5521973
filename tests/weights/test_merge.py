"""Merged files against peft: the unmerged adapter, and peft's own merge."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from clusterlm.errors import WeightsError
from clusterlm.weights.merge import merge
from clusterlm.weights.merge_job import Merged, MergeJob
from tests.weights.kinds import KINDS, UNTIED, make_adapter, make_base

pytestmark = pytest.mark.filterwarnings("ignore")
IDS = torch.tensor([[1, 5, 60, 3, 17, 40, 3, 8]])


def quiet(text: str) -> None:
    """Say nothing."""


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def merge_here(tmp_path: Path, base: Path, *adapters: Path, **how: Any) -> Merged:
    job = MergeJob(str(base), adapters, str(base), **{"bound": 1e-4, **how})
    return merge(job, tmp_path / "merged", say=quiet)


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_the_same_as_peft(kind: str, tmp_path: Path) -> None:
    name, settings = KINDS[kind]
    base = tmp_path / "base"
    adapter = make_adapter(tmp_path / "adapter", base, make_base(base, name), dict(settings))
    merged = merge_here(tmp_path, base, adapter)

    unmerged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    ours = AutoModelForCausalLM.from_pretrained(merged.folder)
    reference = logits_of(unmerged)
    assert torch.allclose(logits_of(ours), reference, atol=1e-5)
    plain = logits_of(AutoModelForCausalLM.from_pretrained(base))
    assert (plain - reference).abs().max() > 0.01, "the adapter changed nothing"
    assert merged.is_untied == (kind in UNTIED)
    if kind != "tied, LoRA of the head":
        # there peft changes the embedding too, which it shares (peft #2018)
        assert torch.allclose(logits_of(unmerged.merge_and_unload()), logits_of(ours), atol=1e-5)


@pytest.fixture
def lora(tmp_path: Path) -> tuple[Path, Path]:
    base = tmp_path / "base"
    settings = {"target_modules": ["q_proj", "down_proj"]}
    return base, make_adapter(tmp_path / "adapter", base, make_base(base, "llama"), settings)


def test_shards_change_nothing(lora: Any, tmp_path: Path) -> None:
    base, adapter = lora
    merge_here(tmp_path, base, adapter)
    job = MergeJob(str(base), [adapter], str(base), max_shard_bytes=20_000, compares=False)
    merge(job, tmp_path / "sharded", say=quiet)
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 3
    whole = load_file(tmp_path / "merged" / "model.safetensors")
    parts = [load_file(path) for path in (tmp_path / "sharded").glob("*.safetensors")]
    found = {name: tensor for part in parts for name, tensor in part.items()}
    assert set(found) == set(whole)
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_what_is_not_changed_is_copied_to_the_byte(lora: Any, tmp_path: Path) -> None:
    base, adapter = lora
    merged = merge_here(tmp_path, base, adapter)
    before = load_file(base / "model.safetensors")
    after = load_file(merged.folder / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == merged.num_changed == 4
    assert all("q_proj" in name or "down_proj" in name for name in changed)


def test_several_adapters_in_order(lora: Any, tmp_path: Path) -> None:
    base, first = lora
    model = AutoModelForCausalLM.from_pretrained(base)
    settings = {"target_modules": ["q_proj"], "use_dora": True}
    second = make_adapter(tmp_path / "second", base, model, settings)
    merged = merge_here(tmp_path, base, first, second)
    assert merged.comparison is not None
    assert merged.comparison.difference < 1e-5
    job = MergeJob(str(base), [second, first], str(base))
    other = merge(job, tmp_path / "other", say=quiet)
    ours, swapped = (AutoModelForCausalLM.from_pretrained(one.folder) for one in (merged, other))
    assert not torch.allclose(logits_of(ours), logits_of(swapped), atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "tied"])
@pytest.mark.parametrize("table", ["lm_head", "embed_tokens"])
def test_a_later_adapter_does_not_undo_what_an_earlier_one_made_of_a_table(
    kind: str, table: str, tmp_path: Path
) -> None:
    # peft lays the frozen table beside a LoRA of it
    base = tmp_path / "base"
    make_base(base, kind)
    settings = {"target_modules": ["q_proj", table]}
    pair = []
    for name, size in (("one", {}), ("two", {"target_modules": ["v_proj", table]})):
        model = AutoModelForCausalLM.from_pretrained(base)
        pair.append(make_adapter(tmp_path / name, base, model, settings | size))
    merged = merge_here(tmp_path, base, *pair)
    of_base = load_file(base / "model.safetensors")
    expected = of_base.get(f"{table}.weight", of_base["model.embed_tokens.weight"]).double()
    for folder in pair:
        tensors = load_file(folder / "adapter_model.safetensors")
        parts = {k[-15:]: t.double() for k, t in tensors.items() if f"{table}.lora_" in k}
        a, b = (next(t for k, t in parts.items() if f"_{c}" in k) for c in "AB")
        expected = expected + (b @ a if table == "lm_head" else (b @ a).T) * (6 / 4)
    found = load_file(merged.folder / "model.safetensors")
    name = next(name for name in found if table in name)
    assert torch.allclose(found[name].double(), expected, atol=1e-5)


def test_scale_is_that_of_the_update(lora: Any, tmp_path: Path) -> None:
    base, adapter = lora
    half = merge_here(tmp_path, base, adapter, scale=0.5)
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors = load_file(adapter / "adapter_model.safetensors")
    a, b = (
        tensors[f"base_model.model.model.layers.0.self_attn.q_proj.lora_{k}.weight"] for k in "AB"
    )
    expected = load_file(base / "model.safetensors")[name] + b @ a * (6 / 4) * 0.5
    assert torch.allclose(load_file(half.folder / "model.safetensors")[name], expected, atol=1e-6)


def test_a_larger_vocabulary_comes_from_the_adapter(tmp_path: Path) -> None:
    base = tmp_path / "base"
    model = make_base(base, "tied")
    model.resize_token_embeddings(72, mean_resizing=False)
    settings = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    adapter = make_adapter(tmp_path / "adapter", base, model, settings)
    merged = merge_here(tmp_path, base, adapter)
    assert merged.rows == 72
    ours = AutoModelForCausalLM.from_pretrained(merged.folder)
    assert ours.config.vocab_size == 72
    assert not torch.equal(ours.lm_head.weight, ours.model.embed_tokens.weight)


def test_rows_of_a_larger_table_need_the_resized_base(tmp_path: Path) -> None:
    base, resized = tmp_path / "base", tmp_path / "resized"
    model = make_base(base, "tied")
    model.resize_token_embeddings(72, mean_resizing=False)
    model.save_pretrained(resized)
    settings = {"target_modules": ["q_proj"], "trainable_token_indices": [70, 71]}
    adapter = make_adapter(tmp_path / "adapter", base, model, settings)
    with pytest.raises(WeightsError, match="trains row 71 and the base has 64 rows"):
        merge_here(tmp_path, base, adapter)
    job = MergeJob(str(resized), [adapter], str(base), bound=1e-4)
    assert not merge(job, tmp_path / "merged", say=quiet).is_untied


def test_equal_tables_stay_tied(tmp_path: Path) -> None:
    base = tmp_path / "base"
    settings = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    adapter = make_adapter(tmp_path / "adapter", base, make_base(base, "tied"), settings)
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    head = "base_model.model.lm_head.weight"
    tensors[head] = tensors["base_model.model.model.embed_tokens.weight"].clone()
    save_file(tensors, path)
    merged = merge_here(tmp_path, base, adapter)
    assert not merged.is_untied
    assert json.loads((merged.folder / "config.json").read_text())["tie_word_embeddings"] is True
    assert "lm_head.weight" not in load_file(merged.folder / "model.safetensors")


def test_a_converted_pissa_is_an_ordinary_adapter(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = tmp_path / "base"
    model = make_base(base, "llama")
    model.name_or_path = str(base)
    config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa")
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].init_lora_weights = True
    adapted.save_pretrained(tmp_path / "start")
    adapted.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    trained = logits_of(adapted)
    adapted.save_pretrained(tmp_path / "raw")
    adapted.save_pretrained(
        tmp_path / "converted", path_initial_model_for_weight_conversion=str(tmp_path / "start")
    )
    with pytest.raises(WeightsError, match="pissa, which changed the base"):
        merge_here(tmp_path, base, tmp_path / "raw")
    merged = merge_here(tmp_path, base, tmp_path / "converted")
    ours = logits_of(AutoModelForCausalLM.from_pretrained(merged.folder))
    assert torch.allclose(ours, trained, atol=1e-4)


def test_bf16_has_a_relative_bound_and_a_card(tmp_path: Path) -> None:
    base = tmp_path / "base"
    model = make_base(base, "llama", dtype=torch.bfloat16)
    settings = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
    adapter = make_adapter(tmp_path / "adapter", base, model, settings)
    merged = merge_here(tmp_path, base, adapter, bound=0.05)
    assert merged.comparison is not None
    assert merged.comparison.is_relative
    tensors = load_file(merged.folder / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    card = (merged.folder / "README.md").read_text()
    assert "adapter_model.safetensors" in card
    assert "max |difference|" in card
    assert str(base) in card
    whole = MergeJob(str(base), [adapter], str(base), dtype="float32")
    exact = merge(whole, tmp_path / "exact", say=quiet)
    assert exact.comparison is not None
    assert exact.comparison.difference < 1e-4
    assert json.loads((exact.folder / "config.json").read_text())["dtype"] == "float32"


def test_nothing_is_left_when_they_differ(lora: Any, tmp_path: Path) -> None:
    base, adapter = lora
    with pytest.raises(WeightsError, match="differs from base and adapter"):
        merge_here(tmp_path, base, adapter, bound=1e-12)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "base"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type IA3 cannot be merged"),
        ({"target_parameters": ["experts.w"]}, "does not know target_parameters"),
        ({"layer_replication": [[0, 1]]}, "does not know layer_replication"),
        ({"use_qalora": True, "a_new_one": 3}, "does not know a_new_one, use_qalora"),
        ({"init_lora_weights": "olora"}, "olora, which changed the base"),
    ],
)
def test_a_feature_that_is_not_known_is_named(
    values: dict[str, Any], said: str, lora: Any, tmp_path: Path
) -> None:
    base, adapter = lora
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(WeightsError, match=said):
        merge_here(tmp_path, base, adapter)


def test_another_base_is_refused(lora: Any, tmp_path: Path) -> None:
    _, adapter = lora
    make_base(tmp_path / "gpt2", "gpt2")
    with pytest.raises(WeightsError, match="no linear layer or embedding"):
        merge_here(tmp_path, tmp_path / "gpt2", adapter)


def test_a_quantised_base_is_refused(lora: Any, tmp_path: Path) -> None:
    base, adapter = lora
    path = base / "config.json"
    config = json.loads(path.read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    path.write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"quantised \(gptq\).*--base NAME"):
        merge_here(tmp_path, base, adapter)


def test_what_cannot_be_written_is_said_first(
    lora: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = lora
    with pytest.raises(WeightsError, match="--dtype int8: float32, bfloat16, float16"):
        merge_here(tmp_path, base, adapter, dtype="int8")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(WeightsError, match=r"0 MiB are free"):
        merge_here(tmp_path, base, adapter)


def test_a_used_folder_is_not_touched(lora: Any, tmp_path: Path) -> None:
    base, adapter = lora
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "mine").touch()
    with pytest.raises(WeightsError, match="exists already"):
        merge_here(tmp_path, base, adapter)
