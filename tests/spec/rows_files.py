"""Rows of test_rules: what must be on the disk."""

from __future__ import annotations

from tests.spec.conftest import Changes, Row

TEXT = {"kind": "text", "path": "corpus"}
IMAGE = {"image.runtime": "docker"}
TEMPLATE = "data.tokenizer.chat_template"


def custom(converter: str) -> Changes:
    source = {"kind": "custom", "path": "corpus", "converter": converter}
    return {"data.sources": [source]}


CUSTOM = "data.sources[0].converter"
JINJA = """\
{% for message in messages %}
{% if message.role == 'assistant' %}{%- generation -%}{{ message.content }}{% endgeneration %}
{% else %}{% continue %}{% endif %}
{% endfor %}
"""

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
        "sources_exist",
        {"data.sources": [{"kind": "text", "hub": "owner/name"}]},
        {"data.sources": [{"kind": "text", "path": "owner/name"}]},
        "data.sources[0].path",
        "if it is a dataset on the hub, write hub: owner/name",
    ),
    (
        "converters_exist",
        custom("conv.py:to_messages"),
        custom("none.py:to_messages"),
        CUSTOM,
        "there is no file",
    ),
    (
        "converters_exist",
        custom("conv.to_messages"),
        custom("conv.to_message"),
        CUSTOM,
        'conv.py" has no function "to_message"; did you mean `to_messages`?',
    ),
    ("converters_exist", custom("sub.conv:other"), custom("sub.conv:none"), CUSTOM, "accepted: "),
    (
        "converters_exist",
        custom("conv.py:in_a_try"),
        custom("broken.py:f"),
        CUSTOM,
        '"broken.py, line 2" cannot be read as Python',
    ),
    ("converters_exist", custom("conv.py:CONSTANT"), custom("conv.py"), CUSTOM, "conv.py:function"),
    ("converters_exist", custom("conv.py:path"), custom("conv"), CUSTOM, "write conv.py:function"),
    (
        "converters_exist",
        custom("json.dumps"),
        custom("no_such_package.of.functions"),
        CUSTOM,
        "there is no no_such_package/of.py beside the YAML",
    ),
    (
        "converters_exist",
        custom("no_such_package.convert") | IMAGE,
        custom("conv.py:none") | IMAGE,
        CUSTOM,
        "has no function",
    ),
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
        {TEMPLATE: "corpus/a.txt"},
        {TEMPLATE: "none.jinja"},
        TEMPLATE,
        "there is no file",
    ),
    (
        "tokenizer_exists",
        {TEMPLATE: "llama3"},
        {TEMPLATE: "llama-3"},
        TEMPLATE,
        "did you mean `llama3`?",
    ),
    ("tokenizer_exists", {TEMPLATE: "chatml"}, {TEMPLATE: "./chatml"}, TEMPLATE, "is no file"),
    (
        "tokenizer_exists",
        {TEMPLATE: JINJA},
        {TEMPLATE: "{% for x in y %}\n{{ x }}\n{% endif %}"},
        TEMPLATE,
        "is no valid Jinja, line 3",
    ),
    ("tokenizer_exists", {}, {TEMPLATE: "{{ x"}, TEMPLATE, "is no valid Jinja, line 1"),
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
