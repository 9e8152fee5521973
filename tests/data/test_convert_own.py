"""A user's own converter: found, loaded, called, and told of when it fails."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

from clusterlm.data.convert import converter_of
from clusterlm.data.kinds.conversation import Conversation
from clusterlm.data.kinds.own_converter import converter_digest
from clusterlm.errors import DataError
from tests.data.test_convert import bad, converted, dropped, source, turns

_numbers = itertools.count()
QA = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a converter's file; gives what names its function."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(body: str, name: str = "conv", function: str = "to_messages") -> str:
        # a module that was loaded is not read again, so each test has a folder of its own
        (tmp_path / f"{name}.py").write_text(body)
        return f"{tmp_path / name}.py:{function}"

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def returning(expression: str) -> str:
    return f"def to_messages(record):\n    return {expression}\n"


@pytest.mark.parametrize(
    "expression",
    [
        "[{'role': 'user', 'content': record['q']}, {'role': 'bot', 'content': 'A'}]",
        "[{'from': 'human', 'value': 'Q'}, {'from': 'gpt', 'value': 'A'}]",
        "{'messages': [{'role': 'user', 'content': 'Q'}, {'role': 'assistant', 'content': 'A'}]}",
    ],
)
def test_a_function_beside_the_yaml_gives_messages(write: Any, expression: str) -> None:
    converter = write(returning(expression))
    found = turns({"q": "Q"}, "custom", converter=converter, system_prompt="S")
    assert found == [("system", "S"), ("user", "Q"), ("assistant", "A")]


def test_it_may_give_a_text(write: Any) -> None:
    converter = write(returning("record['text'] * 2"))
    assert converted({"text": "ab"}, "custom", converter=converter) == "abab"
    assert converted("file", "custom", converter=converter) == "filefile"
    assert dropped({"text": ""}, "custom", converter=converter).reason == "empty"
    assert dropped({"text": "ab"}, "custom", converter=converter, max_chars=3).reason == "too_long"


def test_it_may_leave_a_record_out(write: Any) -> None:
    assert dropped({}, "custom", converter=write(returning("None"))).reason == "left_out"


def test_it_may_give_tools(write: Any) -> None:
    converter = write(returning(f"{{'messages': {QA}, 'tools': [{{'name': 'f'}}]}}"))
    found = converted({}, "custom", converter=converter)
    assert isinstance(found, Conversation)
    assert found.tools == [{"type": "function", "function": {"name": "f"}}]


def test_what_it_gives_is_checked_like_any_conversation(write: Any) -> None:
    converter = write(returning(f"{QA[:1] * 2 + QA[1:]}"))
    assert dropped({}, "custom", converter=converter).reason == "not_alternating"


def test_it_gets_a_copy_and_its_options(write: Any) -> None:
    body = "def to_messages(record, *, times, mark='!'):\n"
    body += "    return record.pop('text') * times + mark\n"
    row = {"text": "a"}
    found = converted(row, "custom", converter=write(body), options={"times": 3})
    assert found == "aaa!"
    assert row == {"text": "a"}


def test_its_neighbours_can_be_imported_and_hide_nothing(write: Any) -> None:
    write("WORD = 'from beside'\n", name="my_words_for_a_test")
    write("raise RuntimeError('the wrong json')\n", name="json")
    body = "import json\nimport my_words_for_a_test\n"
    body += "def to_messages(record):\n    return my_words_for_a_test.WORD + json.dumps(1)\n"
    assert converted({}, "custom", converter=write(body)) == "from beside1"


def test_an_installed_function_is_named_by_its_module() -> None:
    assert converted({"text": "x"}, "custom", converter="json.dumps") == '{"text": "x"}'
    assert converted({"text": "x"}, "custom", converter="json:dumps") == '{"text": "x"}'


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("record['nothing']", "the converter failed: KeyError: 'nothing' (conv.py, line 2)"),
        ("1 / 0", "ZeroDivisionError: division by zero (conv.py, line 2)"),
        ("5", "what the converter gave is the number 5; accepted: a text, a list of messages"),
        ("{'text': 'x'}", "is an object (text)"),
        ("['x']", 'what the converter gave[0] is the text "x"'),
        ("'\\ud800'", "no Unicode"),
        ("to_messages(record)", "RecursionError"),
        ("sys.exit(0)", "the converter failed: SystemExit: 0 (conv.py, line 3)"),
        ("sys.exit('\\x1b[31m \\ud800')", "SystemExit: \\x1b[31m \\ud800 (conv.py"),
    ],
)
def test_what_goes_wrong_in_it_is_a_bad_record(write: Any, expression: str, says: str) -> None:
    head = "import sys\n" if expression.startswith("sys.") else ""
    assert says in bad({}, "custom", converter=write(head + returning(expression)))


def test_ctrl_c_in_it_goes_through(write: Any) -> None:
    converter = write("def to_messages(record):\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        converted({}, "custom", converter=converter)


@pytest.mark.parametrize(
    ("body", "options", "says"),
    [
        ("def other(record): ...\n", {}, "to_messages is not there"),
        ("to_messages = 5\n", {}, "to_messages is no function"),
        ("def to_messages(record: oops\n", {}, "SyntaxError"),
        ("import nothing_of_that_name\n", {}, "nothing_of_that_name"),
        ("raise SystemExit(0)\n", {}, "cannot be loaded: SystemExit: 0 (conv.py, line 1)"),
        ("def to_messages(): ...\n", {}, "does not take (a record)"),
        ("def to_messages(record): ...\n", {"x": 1}, "does not take (a record, x=...)"),
        ("def to_messages(record, x): ...\n", {}, "missing a required argument: 'x'"),
    ],
)
def test_a_converter_that_cannot_be_used_stops_the_run(
    write: Any, body: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError) as caught:
        converter_of(source("custom", converter=write(body), options=options))
    assert says in str(caught.value)


@pytest.mark.parametrize("converter", ["to_messages", "/none/conv.py:f", "no_such_package.f"])
def test_a_converter_that_is_not_there_stops_the_run(converter: str) -> None:
    with pytest.raises(DataError):
        converter_of(source("custom", converter=converter))
    with pytest.raises(DataError):
        converter_digest(converter)


def test_the_digest_of_a_converter_follows_its_code_and_that_of_its_neighbours(
    write: Any, tmp_path: Path
) -> None:
    converter = write("import helper\ndef to_messages(record): ...\n")
    first = converter_digest(converter)
    assert converter_digest(converter) == first
    write("X = 1\n", name="helper")
    second = converter_digest(converter)
    write("X = 2\n", name="helper")
    third = converter_digest(converter)
    write("X = 3\n", name="not_imported")
    assert len({first, second, third}) == 3
    assert converter_digest(converter) == third
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("conv.py", "helper.py"):
        (moved / name).write_bytes((tmp_path / name).read_bytes())
    assert converter_digest(f"{moved}/conv.py:to_messages") == third


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("from pkg.sub import f", "pkg/sub.py"),
        ("from pkg import sub", "pkg/sub.py"),
        ("import pkg.sub as sub", "pkg/sub.py"),
        ("import pkg", "pkg/deep/more.py"),
        ("from spaces.inner import one", "spaces/inner.py"),
        ("from pkg import sub", "words.py"),
        ("def f(record):\n    from pkg import sub", "further.py"),
    ],
)
def test_the_digest_follows_every_file_of_an_imported_package(
    tmp_path: Path, line: str, changed: str
) -> None:
    files = {
        "conv.py": f"{line}\ndef to_messages(record): ...\n",
        "pkg/__init__.py": "",
        "pkg/sub.py": "from .deep import more\nimport words\n",
        "pkg/deep/more.py": "",
        "pkg/broken.py": "print 'of another Python'",
        "spaces/inner.py": "",
        "words.py": "from further import *\n",
        "further.py": "import conv\n",
        "other.py": "",
    }
    for name, body in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(body)
    converter = f"{tmp_path}/conv.py:to_messages"
    first = converter_digest(converter)
    (tmp_path / "other.py").write_text("X = 1\n")
    assert converter_digest(converter) == first
    with (tmp_path / changed).open("a") as handle:
        handle.write("X = 1\n")
    assert converter_digest(converter) != first


def test_the_digest_of_a_named_module_follows_its_whole_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "my_package_for_a_test"
    package.mkdir()
    for name in ("__init__", "conv", "sub"):
        (package / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    first = converter_digest("my_package_for_a_test.conv.f")
    (package / "sub.py").write_text("X = 1\n")
    assert converter_digest("my_package_for_a_test.conv.f") != first
    assert converter_digest("json.dumps") == converter_digest("json:dumps")
