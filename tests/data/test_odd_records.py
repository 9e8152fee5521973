"""Records that a tokenizer or a file of JSON cannot take: told, and never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clusterlm.errors import DataError
from tests.data.corpus import chat, chat_source, data_of, prepare, text_source, write_rows

CALL = """
def answer(**more):
    call = {"type": "function", "function": {"name": "f", "arguments": more.pop("arguments", {})}}
    return {"messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "r"},
        {"role": "assistant", "content": "b", **more},
    ]}
def deep(levels):
    value = {}
    for _ in range(levels):
        value = {"a": value}
    return value
def go(record):
    if "good" in record:
        return answer()
"""


@pytest.mark.parametrize(
    "expression",
    [
        r"'\ud800'",
        r"[{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': '\ud800'}]",
        r"answer(name='\ud800')",
        r"answer(reasoning_content='\ud800')",
        r"answer(arguments={'\ud800': 1})",
        "answer(arguments={'x': 10**400})",
        "answer(arguments={'x': 2**64})",
        "answer(arguments={'x': object()})",
        "answer(arguments=deep(600))",
        "answer(arguments=deep(100_000))",
        "{**answer(), 'tools': [{'name': 'f', 'parameters': deep(600)}]}",
    ],
)
def test_what_cannot_be_written_is_a_bad_record(tmp_path: Path, expression: str) -> None:
    (tmp_path / "conv.py").write_text(f"{CALL}    return {expression}\n")
    path = write_rows(tmp_path / "a.jsonl", [{"good": 1}, {"x": 1}, {"good": 2}])
    source = {"kind": "custom", "path": str(path), "converter": f"{tmp_path}/conv.py:go"}
    cache = prepare(data_of(source, block_size=512, on_bad_record="skip"))
    assert cache.manifest["sources"][0]["dropped"] == {"bad_record": 1}
    assert cache.manifest["sources"][0]["documents"] == 3
    with pytest.raises(DataError, match=f"{path}:2: it"):
        prepare(data_of(source, block_size=1024))


def test_a_record_nested_deeply_is_a_bad_record(tmp_path: Path) -> None:
    deep: Any = json.loads('{"x":' * 400 + "1" + "}" * 400)
    tools = [{"type": "function", "function": {"name": "f", "parameters": deep}}]
    rows = [{"messages": chat(1)}, {"messages": chat(2), "tools": tools}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    cache = prepare(data_of(chat_source(path), block_size=512, on_bad_record="skip"))
    assert cache.manifest["sources"][0]["dropped"] == {"bad_record": 1}


def test_nothing_that_a_converter_says_can_drive_a_terminal(tmp_path: Path) -> None:
    body = "from clusterlm.data.convert import BadRecord\n"
    body += "def go(record):\n    raise BadRecord('\\x1b[31m red \\ud800')\n"
    (tmp_path / "conv.py").write_text(body)
    path = write_rows(tmp_path / "a.jsonl", [{"x": 1}, {"x": 2}])
    source = {"kind": "custom", "path": str(path), "converter": f"{tmp_path}/conv.py:go"}
    words = text_source(write_rows(tmp_path / "w.jsonl", [{"text": "some words"}]))
    data = data_of(words, source)
    with pytest.raises(DataError) as caught:
        prepare(data)
    assert r"a.jsonl:1: \x1b[31m red \ud800; set data.on_bad_record" in str(caught.value)
