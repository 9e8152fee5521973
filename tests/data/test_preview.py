"""data preview: samples as the model will see them."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusterlm.data.fingerprint import sources_of
from clusterlm.data.looks.preview import Previewer
from clusterlm.data.looks.preview_lines import print_previews
from clusterlm.data.looks.token_words import Token, TokenWords, visible
from clusterlm.spec.data import Data
from tests.data.corpus import (
    chat_source,
    prepare,
    text_source,
    write_chats,
    write_rows,
    write_texts,
)
from tests.data.typed import types, types_json, write_job

EVIL = "\x1b[31mred\x1b[0m \x07 [bold]x[/bold] <script>alert(1)</script> \u202eabc\u009b2J"


@pytest.fixture
def job(tmp_path: Path) -> tuple[str, Data]:
    chats = write_chats(tmp_path / "chats.jsonl", 5)
    rows = [json.loads(line) for line in chats.read_text().splitlines()]
    bad = {"messages": [{"role": "user", "content": "only a question"}]}
    evil = {"messages": [{"role": "user", "content": EVIL}, {"role": "assistant", "content": EVIL}]}
    write_rows(chats, [bad, evil, *rows])
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": f"line one\nПривет {i}"} for i in "abc"])
    return write_job(
        tmp_path,
        text_source(texts),
        chat_source(chats),
        chat_source(chats, role_weights={"user": 0.25}, max_documents=1),
    )


def test_what_is_shown_is_what_is_stored(job: tuple[str, Data]) -> None:
    _, data = job
    cache = prepare(data)
    tokens = cache.tokens()
    previewer = Previewer(data, cache.tokenizer_dir)
    for place, source in sources_of(data)[:2]:
        found = previewer.look(place, source, 100)
        about = next(s for s in cache.manifest["sources"] if s["place"] == place)
        assert len(found.seen) == about["documents"] - sum(about["dropped"].values())
        assert sum(seen.num_tokens for seen in found.seen) == about["tokens"]
        first = [i for token in found.seen[0].tokens for i in token.ids]
        base = next(s for s in cache.manifest["shards"] if s["source"] == place)
        begin = _base_of(cache.manifest, base["key"])
        assert first == tokens[begin : begin + len(first)].tolist()


def _base_of(manifest: dict[str, Any], key: str) -> int:
    base = 0
    for shard in manifest["shards"]:
        if shard["key"] == key:
            return base
        base += shard["num_tokens"]
    raise AssertionError(key)


def test_trained_tokens_are_the_answers_and_the_first_is_never(job: tuple[str, Data]) -> None:
    file, _ = job
    found = types_json("data", "preview", file, "-n", "2")
    text, chats, weighted = found["sources"]
    document = text["documents"][0]
    assert [bool(t["weight"]) for t in document["tokens"]] == [False] + [True] * (
        len(document["tokens"]) - 1
    )
    words = "".join(t["text"] for t in chats["documents"][1]["tokens"] if t["weight"])
    assert words == "answer 0: 0 quick brown fox jumps.<|im_end|>then 1<|im_end|>"
    assert weighted["documents"][0]["weights"].keys() == {"0.25", "1"}
    assert len(weighted["documents"]) == 1, "max_documents"


def test_records_left_out_before_are_named(job: tuple[str, Data]) -> None:
    file, _ = job
    code, out, _ = types("data", "preview", file, "--source", "1", "-n", "1")
    assert code == 0
    assert "left out of the first 2 records: 1 without an answer" in out
    assert "chats.jsonl:1: no answer in 1 turns" in out
    assert "data.sources[0]" not in out


@pytest.mark.parametrize(("split", "count"), [(None, 300), ("[100:]", 200), ("[100:250]", 150)])
def test_all_records_left_out_are_counted(tmp_path: Path, split: str | None, count: int) -> None:
    rows = [{"body": "x"}] * 300 + [{"text": "words"}]
    texts = write_rows(tmp_path / "a.jsonl", rows)
    sound = write_texts(tmp_path / "b.jsonl", 5)
    slices = {"split": split} if split else {}
    file, _ = write_job(tmp_path, text_source(sound), text_source(texts, **slices))
    found = types_json("data", "preview", file, "--source", "1")["sources"][0]
    assert found["counts"] == {"bad_record": count}
    assert len(found["left_out"]) == 10


def test_a_stand_in_for_a_tokenizer_is_told_and_the_trained_one_is_used(
    job: tuple[str, Data],
) -> None:
    file, data = job
    _, _, err = types("data", "preview", file, "-n", "1")
    assert "the tokenizer is not trained yet" in err
    prepare(data)
    assert types("data", "preview", file, "-n", "1")[2] == ""


@pytest.mark.parametrize("asked", ["1", "data.sources[1]", "sources[1]", "chats"])
def test_a_source_is_named_in_many_ways(job: tuple[str, Data], asked: str) -> None:
    found = types_json("data", "preview", job[0], "--source", asked)
    assert found["sources"][0]["place"] == "data.sources[1]"


def test_a_source_that_is_not_there_is_told_with_the_nearest(job: tuple[str, Data]) -> None:
    code, _, err = types("data", "preview", job[0], "--source", "data.source[1]")
    assert code == 2
    assert "did you mean `data.sources[1]`?" in err
    assert types("data", "preview", job[0], "--source", "7")[0] == 2


def _printed(data: Data, *, is_coloured: bool) -> str:
    cache = prepare(data)
    previewer = Previewer(data, cache.tokenizer_dir)
    found = [previewer.look(place, source, 3) for place, source in sources_of(data)]
    out = io.StringIO()
    print_previews(found, out, is_coloured=is_coloured, is_full=False)
    return out.getvalue()


def test_nothing_in_the_data_reaches_the_terminal(job: tuple[str, Data]) -> None:
    told = _printed(job[1], is_coloured=False)
    assert not {c for c in told if not c.isprintable() and c != "\n"}
    words = told.replace("|", "")
    assert "\\x1b[31mred\\x1b[0m \\x07 [bold]x[/bold]" in words
    assert "\\u202eabc\\x9b2J" in words


def test_nor_does_it_in_colours(job: tuple[str, Data], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    told = _printed(job[1], is_coloured=True)
    assert told.count("\x1b") > 50
    assert not {c for c in told if not c.isprintable() and c not in "\n\x1b"}
    words = re.sub(r"\x1b\[[0-9;]*m", "", told)
    assert "\x1b" not in words
    assert "\\x1b[31mred\\x1b[0m \\x07 [bold]x[/bold]" in words


def test_a_page_is_escaped_and_has_no_scripts(job: tuple[str, Data], tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    code, out, _ = types("data", "preview", job[0], "--html", str(page))
    assert code == 0
    assert out == f"written: {page}\n"
    html = page.read_text()
    assert "<script" not in html
    assert "&lt;" in html
    assert "default-src &#x27;none&#x27;" in html or "default-src 'none'" in html
    assert not {c for c in html if not c.isprintable() and c != "\n"}
    assert 'title="id ' in html


def test_long_documents_are_shortened_unless_asked_for(tmp_path: Path) -> None:
    file, _ = write_job(tmp_path, text_source(write_texts(tmp_path / "a.jsonl", 1, length=900)))
    _, out, _ = types("data", "preview", file)
    assert " more ..." in out
    assert " more ..." not in types("data", "preview", file, "--full")[1]


def test_rows_that_a_source_does_not_take_are_not_shown(tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "a.jsonl", 20)
    file, _ = write_job(
        tmp_path, text_source(texts, split="[5:7]"), text_source(texts, split="[-2:]")
    )
    first, second = types_json("data", "preview", file, "-n", "9")["sources"]
    assert [d["place"] for d in first["documents"]] == [f"{texts}:6", f"{texts}:7"]
    assert "counts from the end" in second["notes"][0]


def test_packed_and_csv_files_end(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nfirst words\nsecond words\n")
    file, _ = write_job(tmp_path, text_source(tmp_path / "a.csv"))
    found = types_json("data", "preview", file, "-n", "5")["sources"][0]
    assert [d["place"] for d in found["documents"]] == [
        f"{tmp_path / 'a.csv'}, row {n}" for n in (1, 2)
    ]


def test_a_job_without_data_is_told(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: x\ncluster: local\ntrain: {command: [train.py]}\n")
    (tmp_path / "train.py").write_text("")
    code, _, err = types("data", "preview", str(file))
    assert code == 2
    assert "has no data section" in err


def test_a_character_of_several_tokens_is_shown_once_unless_trained_in_part(
    job: tuple[str, Data],
) -> None:
    cache = prepare(job[1])
    tokenizer = cache.tokenizer_dir / "tokenizer.json"
    words = TokenWords(tokenizer, np.zeros(400, dtype=np.bool_))
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(tokenizer)).encode("日x").ids
    assert len(ids) == 4
    assert list(words.tokens(ids, [1.0] * 4)) == [
        Token(tuple(ids[:3]), "日", 1.0),
        Token((ids[3],), "x", 1.0),
    ]
    apart = list(words.tokens(ids, [0.0, 1.0, 1.0, 1.0]))
    assert [token.text for token in apart] == ["\\xe6", "\\x97", "\\xa5", "x"]
    assert [token.text for token in words.tokens(ids[1:], [1.0] * 3)][:2] == ["\\x97", "\\xa5"]
    assert visible("a\x1b\n\tb") == "a\\x1b↵\n\\tb"


def test_an_overlong_conversation_is_told(tmp_path: Path) -> None:
    file, _ = write_job(tmp_path, chat_source(write_chats(tmp_path / "c.jsonl", 3)))
    found = types_json("data", "preview", file, "-n", "1")["sources"][0]
    assert found["documents"][0]["notes"] == ["longer than a block of 32: dropped (data.overlong)"]
