"""Rows of test_rules: sources, their shares, tokenizer, validation."""

from __future__ import annotations

from typing import Any

from tests.spec.conftest import Changes, Row

TEXT = {"kind": "text", "path": "corpus"}
HUB = {"kind": "text", "hub": "owner/name"}
CHAT = {"kind": "chat", "path": "corpus"}
HELD_BACK = {"data.validation.sources": [TEXT]}


def sources(*rows: dict[str, Any]) -> Changes:
    return {"data.sources": list(rows)}


DATA: list[Row] = [
    (
        "sources_have_one_origin",
        sources(HUB | {"subset": "ru", "revision": "v1", "split": "train[:10%]"}),
        sources({"kind": "text"}),
        "data.sources[0]",
        "write path: ... or hub: owner/name",
    ),
    (
        "sources_have_one_origin",
        sources(TEXT | {"subset": "ru"}),
        sources(TEXT | HUB),
        "data.sources[0]",
        "both path and hub",
    ),
    (
        "sources_have_one_origin",
        {},
        sources(TEXT, TEXT | {"revision": "v1"}),
        "data.sources[1].revision",
        "belongs to a hub name",
    ),
    (
        "sources_have_one_origin",
        {"data.validation.sources": [HUB]},
        {"data.validation.sources": [{"kind": "text"}]},
        "data.validation.sources[0]",
        "write path",
    ),
    (
        "lengths_leave_something",
        sources(TEXT | {"min_chars": 9, "max_chars": 9}),
        sources(TEXT | {"min_chars": 10, "max_chars": 9}),
        "data.sources[0].min_chars",
        "10 is more than max_chars, 9",
    ),
    (
        "lines_are_of_plain_text",
        sources(TEXT | {"documents": "line"}, HUB | {"documents": "file"}),
        sources(HUB | {"documents": "line"}),
        "data.sources[0].documents",
        "line is for plain text",
    ),
    (
        "mapping_goes_with_its_layout",
        sources(CHAT | {"mapping": {"reasoning": "why"}}),
        sources(CHAT | {"mapping": {"reasoning": "why", "greeting": "hello"}}),
        "data.sources[0].mapping.greeting",
        "write layout: character",
    ),
    (
        "mapping_goes_with_its_layout",
        sources(CHAT | {"layout": "character", "mapping": {"name": "who"}}),
        sources(CHAT | {"layout": "messages", "mapping": {"name": "who"}}),
        "data.sources[0].mapping.name",
        "write layout: character",
    ),
    (
        "loss_has_one_rule",
        sources(CHAT | {"role_weights": {"user": 0.1}}),
        sources(CHAT | {"role_weights": {"user": 0.1}, "only_target_loss": False}),
        "data.sources[0].only_target_loss",
        "keep one",
    ),
    (
        "loss_has_one_rule",
        sources(CHAT | {"role_weights": {"user": 0.0}}),
        sources(CHAT | {"role_weights": {"assistant": 0.0, "user": 0.0}}),
        "data.sources[0].role_weights",
        "nothing would be trained",
    ),
    (
        "loss_has_one_rule",
        sources(CHAT | {"role_weights": {"assistant": 0.0, "function_call": 1.0}}),
        sources(CHAT | {"role_weights": {"assistant": 0.0}}),
        "data.sources[0].role_weights",
        "all 0",
    ),
    (
        "shares_are_said_one_way",
        sources(TEXT | {"weight": 2.0}, TEXT),
        sources(TEXT | {"weight": 2.0, "epochs": 1.0}),
        "data.sources[0]",
        "both weight and epochs",
    ),
    (
        "shares_are_said_one_way",
        sources(TEXT | {"epochs": 2.0}, TEXT),
        sources(TEXT | {"weight": 2.0}, TEXT | {"epochs": 2.0}),
        "data.sources[1].epochs",
        "write a weight here too",
    ),
    (
        "shares_are_said_one_way",
        {"data.mix.temperature": 2.0},
        sources(TEXT | {"weight": 2.0}) | {"data.mix.temperature": 2.0},
        "data.mix.temperature",
        "so does weight of a source",
    ),
    (
        "shares_are_said_one_way",
        {},
        sources(TEXT | {"epochs": 2.0}) | {"data.mix.temperature": 2.0},
        "data.mix.temperature",
        "so does epochs of a source",
    ),
    ("tokenizer_has_one_origin", {}, {"data.tokenizer": {}}, "data.tokenizer", "write name"),
    (
        "tokenizer_has_one_origin",
        {"data.tokenizer": {"name": "owner/name", "revision": "main"}},
        {"data.tokenizer.name": "owner/name"},
        "data.tokenizer",
        "both",
    ),
    (
        "tokenizer_has_one_origin",
        {},
        {"data.tokenizer.revision": "main"},
        "data.tokenizer.revision",
        "belongs to a name",
    ),
    (
        "tokenizer_has_one_origin",
        {"data.tokenizer": {"name": "owner/name", "extend": {"tokens": ["x"]}}},
        {"data.tokenizer.extend": {"tokens": ["x"]}},
        "data.tokenizer.extend",
        "takes its vocab_size",
    ),
    (
        "validation_has_one_origin",
        HELD_BACK,
        HELD_BACK | {"data.validation.fraction": 0.1},
        "data.validation",
        "keep one",
    ),
    (
        "validation_has_one_origin",
        sources(TEXT | {"validation": 0.1}) | {"data.validation.fraction": 0.2},
        sources(TEXT, TEXT | {"validation": 0.1}) | HELD_BACK,
        "data.sources[1].validation",
        "keep one",
    ),
    (
        "validation_has_one_origin",
        {},
        {"data.validation.sources": [TEXT | {"validation": 0.0}]},
        "data.validation.sources[0].validation",
        "keep one",
    ),
    (
        "decontamination_has_a_validation_set",
        HELD_BACK | {"data.dedup.decontaminate": {}},
        {"data.dedup.decontaminate": {}},
        "data.dedup.decontaminate",
        "there is no validation data",
    ),
    (
        "decontamination_has_a_validation_set",
        sources(TEXT | {"validation": 0.1}) | {"data.dedup.decontaminate": {}},
        sources(TEXT | {"validation": 0.0}) | {"data.dedup.decontaminate": {}},
        "data.dedup.decontaminate",
        "data.validation",
    ),
]
