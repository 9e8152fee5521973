"""The look at the first records before a submit."""

from __future__ import annotations

import builtins
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from clusterlm.data.looks.first_look import first_look
from tests.data.corpus import chat, chat_source, data_of, text_source, write_rows
from tests.data.typed import types, write_job

TEXTS = [{"text": f"words {i}"} for i in range(30)]
CHATS = [{"messages": chat(i)} for i in range(5)]


def _told(*sources: dict[str, Any], **options: Any) -> list[tuple[str, str]]:
    return [(p.where, p.message) for p in first_look(data_of(*sources, **options))]


def test_sound_sources_of_every_format_have_no_problem(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in TEXTS)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "b.json").write_text(json.dumps(TEXTS))
    (tmp_path / "c.csv").write_text("text\n" + "some words\n" * 50)
    (tmp_path / "d.txt").write_text("a document")
    assert (
        _told(text_source(tmp_path), chat_source(write_rows(tmp_path / "e.jsonl", CHATS))) == []
    ), "e.jsonl has no text, but is not among the first 20 records"


def test_a_first_record_without_its_field_is_told_with_its_line(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"body": "x"}, *TEXTS])
    [(where, message)] = _told(text_source(path))
    assert where == "data.sources[0].path"
    assert message == f"{path}:1: the field text is missing; there are: body"
    assert _told(text_source(path), on_bad_record="skip") == []


def test_a_later_bad_record_is_left_to_the_run(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [TEXTS[0], {"body": "x"}])
    assert _told(text_source(path)) == []


def test_records_none_of_which_can_be_used_are_a_problem_whatever_is_asked(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"body": "x"}] * 30)
    [(_, message)] = _told(text_source(path), on_bad_record="quarantine")
    assert message.startswith("none of the first 20 records can be used: ")
    assert message.endswith("a.jsonl:1: the field text is missing; there are: body")


def test_a_misspelt_filter_is_told_and_a_sorted_file_is_not(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{**row, "lang": "en"} for row in TEXTS])
    [(_, message)] = _told(text_source(path, where={"language": "ru"}))
    assert "language is missing" in message
    assert _told(text_source(path, where={"lang": "ru"})) == [], "the next ones may be"
    few = write_rows(tmp_path / "b.jsonl", [{"text": "a", "lang": "en"}] * 3)
    [(_, message)] = _told(text_source(few, where={"lang": "ru"}))
    assert message.startswith("none of the first 3 records can be used")


def test_an_empty_source_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert _told(text_source(tmp_path / "a.jsonl")) == [
        ("data.sources[0].path", "there is no record in it")
    ]


def test_what_is_too_long_to_look_at_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "' + "x" * 5_000_000)
    (tmp_path / "b.txt").write_text("\u00e9" * 3_000_000)
    (tmp_path / "c.json").write_text('[{"text": "' + "x" * 9_000_000 + '"}]')
    for name in ("a.jsonl", "b.txt", "c.json"):
        assert _told(text_source(tmp_path / name, min_chars=9_000_000)) == [], name


def test_records_that_a_slice_passes_over_are_not_judged(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"body": "x"}, *TEXTS])
    assert _told(text_source(path, split="[1:]")) == []
    assert len(_told(text_source(path, split="[:1]"))) == 1


def test_a_converter_that_cannot_be_loaded_is_told_unless_an_image_may_hold_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(tmp_path / "a.jsonl", TEXTS)
    code = tmp_path / "conv.py"
    source = {"kind": "custom", "path": str(path), "converter": f"{code}:f"}
    code.write_text("import no_such_package\ndef f(row): return row['text']\n")
    [(where, message)] = _told(source)
    assert where == "data.sources[0].converter"
    assert "no_such_package" in message
    assert first_look(data_of(source), in_image=True) == []
    code.write_text("print('loud')\ndef f(row): return row['txt']\n")
    assert "conv.py, line 2" in _told(source)[0][1]
    assert capsys.readouterr().out == ""


def test_a_template_is_compiled_and_tried(tmp_path: Path) -> None:
    source = chat_source(write_rows(tmp_path / "a.jsonl", CHATS))

    def told(template: str) -> list[tuple[str, str]]:
        tokenizer = {"train": {"vocab_size": 300}, "chat_template": template}
        return _told(source, tokenizer=tokenizer)

    assert told("llama3") == []
    assert told("{% for m in %}")[0][0] == "data.tokenizer.chat_template"
    [(where, message)] = told("{% for m in messages %}{{ m.role }}{% endfor %}")
    assert where == "data.sources[0].path"
    assert "shows no words of a trained role" in message
    [(_, message)] = told("{{ raise_exception('only poems') }}")
    assert message.startswith("none of the first 5 records can be used: ")
    assert "only poems" in message


def test_without_the_libraries_nothing_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"body": "x"}])
    real = builtins.__import__

    def refuse(name: str, *args: Any) -> Any:
        if name == "clusterlm.data.looks.first_records":
            raise ModuleNotFoundError(name="orjson")
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert _told(text_source(path)) == []


@pytest.mark.parametrize("command", ["check", "submit"])
def test_check_and_submit_tell_all_problems_with_their_lines(tmp_path: Path, command: str) -> None:
    texts = write_rows(tmp_path / "a.jsonl", [{"body": "x"}])
    chats = write_rows(tmp_path / "b.jsonl", [{"text": "x"}])
    file, _ = write_job(tmp_path, text_source(texts), chat_source(chats))
    code, _, err = types(command, file)
    assert code == 2
    head, first, second = err.splitlines()
    assert head == "job.yaml: 2 problems"
    assert "data.sources[0].path" in first
    assert "a.jsonl:1: the field text is missing" in first
    assert "(line " in first
    assert "data.sources[1].path" in second
    code, _, err = types(command, file, "--set", f"data.sources[1].path={texts}")
    assert "--set data.sources[1].path" in err
