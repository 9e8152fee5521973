"""Training scripts that are known: what their data are, and what they do without being told.

A command line says where the data lie; what a record is, how blocks are filled and what the loss
sees stand in the script. For a script that is not known the data are texts, and a note says so.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

from clusterlm.importing.arguments import scalar
from clusterlm.importing.draft import FILL_IN, Draft
from clusterlm.importing.shell import absence_of, readable, unset_in
from clusterlm.importing.special_flags import Given

CONCAT = {"data.packing": ("concat", "as there: one stream, cut into blocks")}
ACROSS = {
    "data.isolate_documents": (False, "as there: attention crosses documents; true is the default")
}
PADDED = {
    "data.packing": ("padded", "as there: one conversation a block; best_fit fills them, faster")
}
CUT = {"data.overlong": ("truncate", "as there")}
LAYOUTS = {".jsonl": "*.jsonl", ".json": "*.json", ".txt": "*.txt"}


@dataclass(frozen=True)
class Program:
    """One training script.

    Attributes:
        words: what it is.
        source: a source of its data, but for the path.
        folder: files that it reads of a folder.
        sets: what follows from the script itself: place -> (value, why).
        percent: what `--validation_split_percentage 5` is divided by.
        held_back: share of the data that it evaluates on, where no file is given.
        block_size: tokens in a sequence, by default.
        resizes: whether the embedding follows the tokenizer.
        own_tokenizer: it must be told a tokenizer beside the model.
        has_adapter: always, and not only when options say so.
        lora: defaults of its options of LoRA.
    """

    words: str
    source: dict[str, Any]
    folder: str = "*"
    sets: dict[str, tuple[Any, str]] = field(default_factory=dict)
    percent: float = 100.0
    held_back: float = 0.0
    block_size: int | None = None
    resizes: bool = False
    own_tokenizer: bool = False
    has_adapter: bool = False
    lora: dict[str, Any] = field(default_factory=dict)


TEXT = {"kind": "text"}
LORA = {"r": 8, "alpha": 32, "dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}
CHINESE_PT = Program(
    "Chinese-LLaMA-Alpaca's further pretraining",
    {"kind": "text", "documents": "line"},
    folder="*.txt",
    sets=CONCAT | ACROSS,
    percent=1.0,
    held_back=0.05,
    block_size=1024,
    resizes=True,
    own_tokenizer=True,
    has_adapter=True,
    lora=LORA,
)
CHINESE_SFT = Program(
    "Chinese-LLaMA-Alpaca's fine-tuning",
    {"kind": "instruct"},
    folder="*.json",
    sets=PADDED | CUT | {"data.tokenizer.chat_template": ("alpaca", "as there")},
    percent=1.0,
    block_size=512,
    resizes=True,
    own_tokenizer=True,
    has_adapter=True,
    lora=LORA,
)
RUADAPT = Program(
    "ruadapt's train_trainer.py",
    {"kind": "text", "where_not": {"domain": "enwiki"}},
    sets={
        "data.packing": ("paragraph_start", "as there: a block begins with a document or paragraph")
    }
    | ACROSS,
    held_back=0.05,
    block_size=1024,
    resizes=True,
    lora=LORA,
)
FASTCHAT = Program(
    "FastChat",
    {"kind": "chat", "layout": "sharegpt"},
    sets=PADDED | CUT | {"data.tokenizer.chat_template": ("vicuna", "as there")},
    block_size=512,
    lora=LORA | {"alpha": 16, "dropout": 0.05},
)
RUN_CLM = Program(
    "transformers' run_clm.py", TEXT, sets=CONCAT | ACROSS, held_back=0.05, block_size=1024
)
PROGRAMS: tuple[tuple[str, Program], ...] = (
    (r"run_clm_pt_with_peft\.py", CHINESE_PT),
    (r"run_clm_sft_with_peft\.py", CHINESE_SFT),
    (r"train_trainer\.py", RUADAPT),
    (r".*fastchat[/.]train[/.]train\w*(\.py)?", FASTCHAT),
    (r"(run_)?clm(_no_trainer)?\.py", RUN_CLM),
)
"""Patterns of the script's path or name, and what it is."""


def known_program(path: str) -> Program | None:
    """What a script is, by its path."""
    for pattern, program in PROGRAMS:
        if re.fullmatch(f"{pattern}|.*/{pattern}", path, re.IGNORECASE):
            return program
    return None


def read_data(given: Given, program: Program | None, draft: Draft) -> None:
    """Put sources and validation into the draft."""
    about = program or Program("", TEXT)
    kind = dict(about.source)
    for name in ("data_path", "dataset_dir", "train_file", "dataset_name"):
        if name in given:
            _add_source(name, given, about, kind, draft)
    if not draft.has("data.sources"):
        _set_source("data.sources", _with_path(kind, FILL_IN), "CHANGE: where the data lie", draft)
        draft.to_fill_in["data.sources[0].path"] = "where the data lie"
    _read_validation(given, about, kind, draft)
    for name in ("max_eval_samples", "dataset_config_name"):
        if name in given and not (name == "dataset_config_name" and "dataset_name" in given):
            draft.drop(given[name][1], "has no effect here")


def _add_source(
    name: str, given: Given, about: Program, kind: dict[str, Any], draft: Draft
) -> None:
    values, written = given[name]
    source = {"kind": kind["kind"], "path": ""}
    comment = written
    if name == "dataset_name":
        source = {"kind": kind["kind"], "hub": readable(values[0])}
        if "dataset_config_name" in given:
            config, said = given["dataset_config_name"]
            source["subset"] = readable(config[0])
            comment = f"{written} {said}"
    elif unset_in(values[0]):
        source["path"] = FILL_IN
        comment = f"CHANGE: {absence_of(values[0])}"
        draft.to_fill_in["data.sources[0].path"] = comment.removeprefix("CHANGE: ")
    else:
        source["path"] = values[0]
        if name == "dataset_dir":
            source["path"] = os.path.join(values[0], about.folder)
    source |= {key: value for key, value in kind.items() if key != "kind"}
    limit = given.get("max_train_samples")
    if limit and limit[0] and limit[0][0].isdigit():
        source["max_documents"] = int(limit[0][0])
    elif limit:
        draft.note(limit[1], "is no number; write max_documents of a source")
    _set_source("data.sources", source, comment, draft)


def _with_path(kind: dict[str, Any], path: str) -> dict[str, Any]:
    return {"kind": kind["kind"], "path": path, **kind}


def _set_source(place: str, source: dict[str, Any], comment: str, draft: Draft) -> None:
    sources = [*(draft.get(place) or []), source]
    draft.add(place, sources)
    draft.get(place)[:] = sources
    where = f"{place}[{len(sources) - 1}]"
    draft.comments[f"{where}.{'hub' if 'hub' in source else 'path'}"] = comment
    if "where_not" in source:
        draft.comments[f"{where}.where_not"] = "as there: the script leaves them out"
    if source.get("documents") == "line":
        draft.comments[f"{where}.documents"] = "as there: each line is a document"


def _read_validation(given: Given, about: Program, kind: dict[str, Any], draft: Draft) -> None:
    for name in ("validation_file", "eval_data_path"):
        values, written = given.get(name, ([], ""))
        if not values or about is CHINESE_PT:
            if written:
                draft.drop(written, "the script does not use it")
            continue
        path = values[0]
        if unset_in(path):
            written, path = f"CHANGE: {absence_of(path)}", FILL_IN
            draft.to_fill_in["data.validation.sources[0].path"] = written[8:]
        _set_source("data.validation.sources", _with_path(kind, path), written, draft)
    values, written = given.get("validation_split_percentage", ([], ""))
    share = scalar(values[0]) if values else None
    if isinstance(share, int | float) and draft.has("data.validation.sources"):
        draft.drop(written, "validation has a file of its own")
    elif isinstance(share, int | float) and 0 < share / about.percent < 1:
        draft.put("data.validation.fraction", share / about.percent, written)
    elif written:
        draft.note(written, "write data.validation: {fraction: ...}")
    elif about.held_back and "do_eval" in given and not draft.has("data.validation.sources"):
        why = "the default of the script, where the data have no part for it"
        draft.add("data.validation.fraction", about.held_back, why)
    if not draft.has("data.validation") and draft.has("train.eval_steps"):
        draft.drop(draft.comments["train.eval_steps"], "there are no data to evaluate on")
        draft.remove("train.eval_steps")
