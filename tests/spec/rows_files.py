"""Rows of test_rules: what must be on the disk."""

from __future__ import annotations

from tests.spec.conftest import Row

TEXT = {"kind": "text", "path": "corpus"}
ZERO = {"train.strategy": "deepspeed"}

FILES: list[Row] = [
    (
        "sources_exist",
        {"data.sources": [{"kind": "text", "path": "corpus/**"}]},
        {"data.sources": [{"kind": "text", "path": "corpus/*.md"}]},
        "data.sources[0].path",
        "no file matches",
    ),
    (
        "sources_exist",
        {"data.sources": [TEXT]},
        {"data.sources": [TEXT, {"kind": "chat", "path": "chats.jsonl"}]},
        "data.sources[1].path",
        "no file or folder",
    ),
    (
        "sources_exist",
        {"data.validation.sources": [TEXT]},
        {"data.validation.sources": [{"kind": "text", "path": "none"}]},
        "data.validation.sources[0].path",
        "no file or folder",
    ),
    ("sources_exist", {}, {"data.sources.0.path": "empty"}, "data.sources[0].path", "is empty"),
    (
        "tokenizer_exists",
        {"data.tokenizer": {"name": "gpt2"}},
        {"data.tokenizer": {"name": "./none"}},
        "data.tokenizer.name",
        "there is no folder",
    ),
    (
        "tokenizer_exists",
        {},
        {"data.tokenizer": {"name": "corpus"}},
        "data.tokenizer.name",
        "has none of tokenizer.json",
    ),
    (
        "tokenizer_exists",
        {"data.tokenizer.chat_template": "corpus/a.txt"},
        {"data.tokenizer.chat_template": "none.jinja"},
        "data.tokenizer.chat_template",
        "there is no file",
    ),
    (
        "model_exists",
        {"model": {"name": "model"}},
        {"model": {"name": "corpus"}},
        "model.name",
        "has none of config.json",
    ),
    ("model_exists", {}, {"model": {"name": "a b"}}, "model.name", "nor a hub id"),
    (
        "block_fits_the_model",
        {"model.from_scratch.config.max_position_embeddings": 64},
        {"model.from_scratch.config.max_position_embeddings": 63},
        "data.block_size",
        "write at most 63",
    ),
    (
        "block_fits_the_model",
        {"model": {"name": "model"}, "data.block_size": 128},
        {"model": {"name": "model"}, "data.block_size": 129},
        "data.block_size",
        "context of 128",
    ),
    (
        "deepspeed_json_agrees",
        ZERO | {"train.deepspeed": "zero.json"},
        ZERO | {"train.deepspeed": "zero.json", "train.micro_batch_size": 2},
        "train.deepspeed",
        "train_micro_batch_size_per_gpu is 1 there, but 2 here",
    ),
    (
        "deepspeed_json_agrees",
        ZERO,
        ZERO | {"train.deepspeed": "none.json"},
        "train.deepspeed",
        "there is no file",
    ),
    (
        "deepspeed_json_agrees",
        ZERO,
        ZERO | {"train.deepspeed": "corpus/a.txt"},
        "train.deepspeed",
        "no JSON",
    ),
    (
        "deepspeed_json_agrees",
        ZERO,
        ZERO | {"train.deepspeed": "zero3.json"},
        "train.deepspeed",
        "gather_16bit",
    ),
    (
        "program_exists",
        {"train.command": ["corpus/a.txt"]},
        {"train.command": ["my_train.py"]},
        "train.command[0]",
        "there is no file",
    ),
    (
        "program_exists",
        {"train.command": ["/opt/in/the/image.py"], "image.runtime": "docker"},
        {"train.command": ["/opt/in/the/image.py"]},
        "train.command[0]",
        "there is no file",
    ),
]
