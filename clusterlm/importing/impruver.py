"""An impruver YAML -> the draft of a job.

Its data recipe (compose_dataset) and its trainer (finetune) are one job here. What compose_dataset
does without being told is written out: near duplicates above 0.8 are dropped, 5 % are held back.
"""

from __future__ import annotations

import os
from typing import Any

from clusterlm.importing.draft import FILL_IN, Draft, run_name
from clusterlm.importing.flags import read_flags
from clusterlm.importing.training_flags import DEFAULTS

CONVERTERS: dict[str, dict[str, Any]] = {
    "instruction_to_messages": {"kind": "instruct"},
    "reasoning_to_messages": {"kind": "instruct"},
    "dialog_to_messages": {"kind": "chat", "layout": "dialog"},
    "conversations_to_messages": {"kind": "chat", "layout": "sharegpt"},
    "char_dialog_to_messages": {"kind": "chat", "layout": "character"},
}
"""impruver's own converters, and the source that reads the same."""
SAME_KEYS = ("subset", "only_target_loss", "mapping")
RENAMED_KEYS = {
    "add_global_bos": "add_bos",
    "add_global_eos": "add_eos",
    "max_tokens_count": "max_tokens",
}
DTYPES = {"bf16": "bfloat16", "fp32": "float32", "bfloat16": "bfloat16", "float32": "float32"}
NOT_OF_A_CONFIG = ("torch_dtype", "_attn_implementation", "vocab_size", "n_ctx")
ADAPTER = {
    "r": "r",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "bias": "bias",
    "target_modules": "target_modules",
    "modules_to_save": "modules_to_save",
    "exclude_modules": "exclude_modules",
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
    "use_rslora": "rslora",
}


def looks_like_impruver(values: object) -> bool:
    """Whether a YAML is one of impruver's."""
    if not isinstance(values, dict):
        return False
    return isinstance(values.get("datasets"), list) and isinstance(values.get("model"), dict)


def draft_impruver(values: dict[str, Any], stem: str, draft: Draft) -> None:
    """Put an impruver configuration into the draft."""
    draft.origins.append("impruver's compose_dataset and finetune")
    for key in ("output_dir", "train_path", "val_path"):
        if key in values:
            draft.drop(f"{key}: {values[key]}", "runs and prepared data have folders of their own")
    known = {"output_dir", "train_path", "val_path", "datasets", "model", "lora", "tokenizer"}
    for key in sorted(values.keys() - known - {"trainer", "ddp"}, key=str):
        draft.note(str(key), "is unclear, left out")
    for key in ("lora", "tokenizer", "trainer", "ddp"):
        if not isinstance(values.get(key) or {}, dict):
            draft.note(f"{key}: {values[key]}", "is no section, left out")
    draft.add("name", run_name(stem))
    model, tokenizer = _mapping(values, "model"), _mapping(values, "tokenizer")
    _read_model(model, draft)
    _read_lora(_mapping(values, "lora"), draft)
    _read_tokenizer(tokenizer, model, draft)
    _read_datasets(values["datasets"], draft)
    _read_trainer(_mapping(values, "trainer") | _mapping(values, "ddp"), model, draft)
    draft.add("cluster", "local", "this machine; write slurm to train on a cluster")
    draft.add("resources.gpus_per_node", 1, "`accelerate config` decided; write how many there are")
    draft.add("resources.time", "1d", "not said; at the limit a run saves, requeues and goes on")


def _mapping(values: dict[str, Any], key: str) -> dict[str, Any]:
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def _read_model(model: dict[str, Any], draft: Draft) -> None:
    name, class_ = model.get("name"), str(model.get("class") or "transformers.AutoModelForCausalLM")
    short = class_.removeprefix("transformers.")
    if name:
        draft.put("model.name", name, "model.name")
        if short != "AutoModelForCausalLM":
            draft.put("model.class", short, "model.class")
    elif isinstance(model.get("config"), dict):
        draft.put("model.from_scratch.class", short, "model.class")
        config = {k: v for k, v in model["config"].items() if k not in NOT_OF_A_CONFIG}
        draft.put("model.from_scratch.config", config, "model.config")
        for key in NOT_OF_A_CONFIG:
            if key in model["config"]:
                why = "the tokenizer, train.precision or the class decides"
                draft.drop(f"model.config.{key}", why)
        if "config_class" in model:
            draft.drop(f"model.config_class: {model['config_class']}", "the class brings it")
    else:
        draft.ask("model.name", FILL_IN, "folder or hub id of the model")
    for key, kind in (("load_in_4bit", "nf4"), ("load_in_8bit", "int8")):
        if model.get(key):
            draft.put("model.quantization", kind, f"model.{key}")
    if attention := model.get("attn_implementation"):
        draft.put("model.attention", attention, "model.attn_implementation")
    known = {"name", "class", "config", "config_class", "dtype", "attn_implementation"}
    for key in sorted(model.keys() - known - {"load_in_4bit", "load_in_8bit"}, key=str):
        draft.note(f"model.{key}: {model[key]}", "is unclear, left out")
    if name:
        why = "is always on there; write model.trust_remote_code: true if the model brings code"
        draft.drop("trust_remote_code", why)


def _read_lora(lora: dict[str, Any], draft: Draft) -> None:
    for key, value in lora.items():
        if key in ADAPTER:
            draft.put(f"model.adapter.{ADAPTER[key]}", value, f"lora.{key}")
        elif key == "use_dora" and value:
            draft.put("model.adapter.method", "dora", "lora.use_dora")
        elif key == "init_lora_weights" and isinstance(value, str):
            draft.put("model.adapter.init", value, "lora.init_lora_weights")
        elif key in ("task_type", "use_dora", "inference_mode", "init_lora_weights"):
            draft.drop(f"lora.{key}: {value}", "that is so")
        else:
            draft.note(f"lora.{key}: {value}", "is unclear, left out")
    if lora:
        draft.put("train.mode", "adapter", "there is a section lora")


def _read_tokenizer(tokenizer: dict[str, Any], model: dict[str, Any], draft: Draft) -> None:
    name = tokenizer.get("name") or model.get("name")
    if name:
        was = "tokenizer.name" if "name" in tokenizer else "the model's"
        draft.put("data.tokenizer.name", name, was)
    else:
        draft.ask("data.tokenizer.name", FILL_IN, "folder or hub id of the tokenizer")
    if "max_tokens_count" in tokenizer:
        draft.put("data.block_size", tokenizer["max_tokens_count"], "tokenizer.max_tokens_count")
    draft.ask("data.block_size", 1024, "the tokenizer's longest text, there")
    if template := tokenizer.get("chat_template"):
        draft.put("data.tokenizer.chat_template", template, "tokenizer.chat_template")
    else:
        why = "where it has none: impruver's own (bos, role, line, words, eos), here chatml"
        draft.note("chat template", f"is the tokenizer's; {why}. The recipe saiga has the former")
    if "special_tokens" in tokenizer:
        why = "the tokenizer's own are used; data.tokenizer.extend.special_tokens adds others"
        draft.note("tokenizer.special_tokens", why)
    class_ = str(tokenizer.get("class") or "transformers.AutoTokenizer")
    if class_ != "transformers.AutoTokenizer":
        draft.drop(f"tokenizer.class: {class_}", "tokenizers are read from their tokenizer.json")
    known = {"name", "class", "max_tokens_count", "chat_template", "special_tokens"}
    for key in sorted(tokenizer.keys() - known, key=str):
        draft.note(f"tokenizer.{key}: {tokenizer[key]}", "is unclear, left out")


def _read_datasets(datasets: Any, draft: Draft) -> None:
    entries = [one for one in datasets if isinstance(one, dict)]
    for one in datasets:
        if not isinstance(one, dict):
            draft.note(f"datasets: {one}", "is no section with a name, left out")
    sources = [_source(one, number, draft) for number, one in enumerate(entries)]
    if sources:
        draft.add("data.sources", sources)
        draft.num_translated += len(sources)
    else:
        draft.ask("data.sources", [{"kind": "chat", "path": FILL_IN}], "there are no datasets")
    draft.add("data.packing", "padded", "as there: one sample a block; best_fit fills them, faster")
    draft.add("data.dedup.near.threshold", 0.8, "as compose_dataset does")
    draft.add("data.validation.fraction", 0.05, "as compose_dataset does")


def _source(entry: dict[str, Any], number: int, draft: Draft) -> dict[str, Any]:
    where = f"datasets[{number}]"
    converter = str(entry.get("converter") or "")
    short = converter.removeprefix("impruver.").rpartition(".")[2]
    source: dict[str, Any] = {"kind": "chat", "layout": "messages"}
    if converter and short in CONVERTERS and converter.startswith("impruver"):
        source = dict(CONVERTERS[short])
    elif converter:
        source = {"kind": "custom", "converter": converter}
        draft.note(f"{where}: {converter}", "a function of your own: put its file beside the YAML")
    name = str(entry.get("name") or FILL_IN)
    is_path = name.startswith((".", "/", "~")) or os.path.exists(name)
    rest = source
    source = {"kind": rest["kind"], "path" if is_path else "hub": name, **rest}
    if entry.get("split", "train") != "train":
        source["split"] = entry["split"]
    source |= {key: entry[key] for key in SAME_KEYS if entry.get(key) is not None}
    source |= {new: entry[old] for old, new in RENAMED_KEYS.items() if old in entry}
    if short == "reasoning_to_messages" and "mapping" not in source:
        source["mapping"] = {"reasoning": "reasoning"}
    known = {"name", "converter", "split", *SAME_KEYS, *RENAMED_KEYS}
    for key in sorted(entry.keys() - known, key=str):
        draft.note(f"{where}.{key}: {entry[key]}", "is unclear, left out")
    return source


def _read_trainer(trainer: dict[str, Any], model: dict[str, Any], draft: Draft) -> None:
    if class_ := trainer.pop("class", None) or trainer.pop("trainer_class", None):
        draft.note(f"trainer.class: {class_}", "is left out: the built-in trainer trains")
    said = {key: _text(value) for key, value in trainer.items()}
    given = {key: ([text], f"trainer.{key}: {text}") for key, text in said.items()}
    # with validation data: eval_strategy says how often
    read_flags({**given, "validation_file": ([], "")}, draft)
    dtype = str(model.get("dtype") or "bf16")
    precision = {"fp16": "fp16", "float16": "fp16", "fp32": "fp32", "float32": "fp32"}.get(dtype)
    draft.add("train.precision", precision or "bf16", f"model.dtype: {dtype}")
    if dtype in DTYPES and draft.get("train.mode") != "adapter":
        draft.put("model.dtype", DTYPES[dtype], "model.dtype")
    for place, (value, flag) in DEFAULTS.items():
        draft.add(place, value, f"the default of transformers: {flag}")
    if not draft.has("train.max_steps"):
        draft.add("train.epochs", 3, "the default of transformers: num_train_epochs")


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        import json

        return json.dumps(value)
    return str(value)
