"""A job that is right, to be made wrong in one place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterlm.errors import SpecError
from clusterlm.spec.load import LoadedJob, load_job

Changes = dict[str, Any]
"""Dotted places and what to write there."""
Row = tuple[str, Changes, Changes, str, str]
"""A rule, what it lets pass, what it refuses, the place of the problem, what the message says."""
Load = Callable[..., LoadedJob]
Refuse = Callable[..., dict[str, str]]


def right_job() -> dict[str, Any]:
    return {
        "name": "small",
        "data": {
            "tokenizer": {"train": {"vocab_size": 300}},
            "sources": [{"kind": "text", "path": "corpus/*.txt"}],
            "block_size": 64,
        },
        "model": {
            "from_scratch": {
                "class": "LlamaForCausalLM",
                "config": {"hidden_size": 64, "num_attention_heads": 4},
            }
        },
    }


def change(job: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Set dotted places; `...` takes the key away."""
    for where, value in changes.items():
        *outer, last = where.split(".")
        holder = job
        for key in outer:
            holder = holder.setdefault(key, {})
        if value is ...:
            holder.pop(last)
        else:
            holder[last] = value
    return job


LAYER = "model.layers.0"
WEIGHTS: dict[str, list[int]] = {
    "model.embed_tokens.weight": [8, 2],
    f"{LAYER}.self_attn.q_proj.weight": [2, 2],
    f"{LAYER}.mlp.up_proj.weight": [4, 2],
    f"{LAYER}.input_layernorm.weight": [2],
    "model.norm.weight": [2],
}


def write_weights(folder: Path, *, cut: int, model_type: str = "llama") -> None:
    """A model's folder; its file misses the last `cut` bytes."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    header, end = {}, 0
    for name, shape in WEIGHTS.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + bytes(end)
    (folder / "model.safetensors").write_bytes(content[: len(content) - cut])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_text("some text\n")
    return tmp_path


@pytest.fixture
def load(folder: Path) -> Load:
    """Load a YAML text, or the right job with changes."""

    def load(job: str | dict[str, Any], *overrides: str) -> LoadedJob:
        text = job if isinstance(job, str) else yaml.safe_dump(change(right_job(), job))
        (folder / "job.yaml").write_text(text)
        return load_job(folder / "job.yaml", overrides)

    return load


@pytest.fixture
def refuse(load: Load) -> Refuse:
    """Load what must be refused; gives the messages by place."""

    def refuse(job: str | dict[str, Any], *overrides: str) -> dict[str, str]:
        with pytest.raises(SpecError) as caught:
            load(job, *overrides)
        return {p.where: p.message for p in caught.value.problems}

    return refuse
