"""Every record that cannot be used is copied aside, with its line."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from clusterlm.data.cache import Cache
from clusterlm.data.files import SourceFile
from clusterlm.data.quarantine import _Lines
from clusterlm.data.summary import summary_of
from tests.data.corpus import chat_source, data_of, prepare, text_source

GOOD = json.dumps({"text": "some words that can be used", "l": 1}) + "\n"


def quarantined(*sources: dict[str, Any]) -> tuple[Cache, list[dict[str, str]]]:
    cache = prepare(data_of(*sources, on_bad_record="quarantine", block_size=16))
    lines = (cache.root / "quarantine.jsonl").read_text().splitlines()
    assert cache.manifest["quarantined"] == len(lines)
    return cache, [json.loads(line) for line in lines]


@pytest.mark.parametrize("packing", ["", ".gz"])
def test_none_is_lost_and_each_has_its_line(
    tmp_path: Path, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusterlm.data.formats.chunks.CHUNK_BYTES", 1000)
    monkeypatch.setattr("clusterlm.data.formats.packed.BLOCK_BYTES", 37)
    lines = [GOOD, "\n", *(f"bad {i}\n" for i in range(200)), GOOD * 30, '{"body": "ü"}']
    path = tmp_path / f"a.jsonl{packing}"
    raw = "".join(lines).encode()
    path.write_bytes(gzip.compress(raw) if packing else raw)
    cache, rows = quarantined(text_source(path), text_source(tmp_path / "a.jsonl*"))
    rows = [row for row in rows if row["source"] == "data.sources[0]"]
    assert [row["place"] for row in rows] == [
        *(f"{path}:{i + 3}" for i in range(200)),
        f"{path}:233",
    ]
    assert [row["record"] for row in rows] == [*(f"bad {i}" for i in range(200)), '{"body": "ü"}']
    assert rows[-1]["reason"] == "the field text is missing; there are: body"
    assert cache.manifest["not_quarantined"] == 0


def test_what_is_filtered_does_not_take_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(GOOD + GOOD.replace("1", "2") * 60 + "bad\n" * 5)
    _, rows = quarantined(text_source(path, where={"l": 1}))
    assert [row["place"] for row in rows] == [f"{path}:{i}" for i in range(62, 67)]


def test_rows_of_tables_and_texts(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.csv").write_text("text,n\nwords to be used,1\nx,2,3\nfurther words,1\n")
    (folder / "b.csv").write_text("body,n\nwords,1\n")
    (folder / "c.txt").write_bytes(b"\xff")
    (folder / "d.txt").write_bytes(b"good words to be used")
    _, rows = quarantined(text_source(folder))
    assert [(row["place"], row["record"]) for row in rows] == [
        (f"{folder}/a.csv, row 2", ""),
        (f"{folder}/b.csv, row 1", '{"body": "words", "n": "1"}'),
        (f"{folder}/c.txt", ""),
    ]


def test_what_is_refused_only_later_is_copied_as_far_as_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusterlm.data.store.documents.MAX_LISTED_BAD", 50)
    path = tmp_path / "a.jsonl"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    untrained = [turns[0], {**turns[1], "weight": 0}]
    rows = [{"messages": turns}] + [{"messages": untrained}] * 60
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cache, found = quarantined(chat_source(path))
    assert len(found) == 50
    assert found[0]["reason"].startswith("nothing to train in it")
    assert cache.manifest["not_quarantined"] == 10
    assert "10 more that cannot be used" in summary_of(cache.manifest)


def test_a_large_file_with_many_is_read_once(tmp_path: Path) -> None:

    path = tmp_path / "a.jsonl"
    part = ("x" * 999 + "\n") * 20 + "bad\n"
    path.write_text(part * 1000)
    lines = _Lines(SourceFile(path, path.name, path.stat().st_size))
    started = time.monotonic()
    for i in range(1000):
        assert lines.at(len(part) * i + 20_000) == (21 * (i + 1), "bad")
    assert time.monotonic() - started < 20
