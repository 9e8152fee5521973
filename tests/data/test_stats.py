"""data stats and data dropped: prepared data in numbers, and what is not in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clusterlm.data.looks import stats as looking
from clusterlm.data.looks.stats import count_tokens, stats_of
from clusterlm.spec.data import Data
from tests.data.corpus import (
    chat_source,
    documents_in,
    planned_documents,
    prepare,
    sentence,
    text_source,
    write_chats,
    write_rows,
    write_texts,
)
from tests.data.typed import add_run, types, types_json, write_job


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def job(tmp_path: Path) -> tuple[str, Data]:
    rows = [{"text": sentence(i, 5 + i), "lang": "ru" if i % 3 else "<b>&\x1b"} for i in range(40)]
    texts = write_rows(tmp_path / "a.jsonl", [*rows, rows[0], {"text": " "}, {"text": ""}])
    chats = write_chats(tmp_path / "b.jsonl", 10)
    lines = [json.loads(line) for line in chats.read_text().splitlines()]
    write_rows(chats, [{"messages": []}, *lines])
    return write_job(
        tmp_path,
        text_source(texts, domain="lang"),
        chat_source(chats),
        block_size=128,
        packing="best_fit",
        dedup={"exact": True},
        validation={"fraction": 0.2},
    )


def test_numbers_are_those_of_the_kept_documents(job: tuple[str, Data]) -> None:
    file, data = job
    cache = prepare(data)
    found = types_json("data", "stats", file)
    for source, row in zip(found["sources"], cache.manifest["sources"], strict=True):
        assert source["documents"] == row["kept"]
        assert source["tokens"] == row["tokens"]
        assert source["trained"] == row["supervised_tokens"]
        assert sum(b[2] for b in source["lengths"]["bins"]) == row["kept"]
        assert sum(b[3] for b in source["lengths"]["bins"]) == row["tokens"]
    kept = planned_documents(cache) | planned_documents(cache, "validation")
    counts = np.bincount([t for document in kept for t in document], minlength=300)
    assert found["tokens"]["total"] == counts.sum()
    top, text, count = found["tokens"]["top"][0]
    assert (top, count) == (int(counts.argmax()), int(counts.max()))
    assert found["tokens"]["unused"] == int((counts == 0).sum())
    entries = sum(entries for _, _, entries in found["tokens"]["by_count"])
    assert entries == cache.manifest["vocab_size"]
    for name, blocks in found["blocks"].items():
        assert sum(blocks["fill"]) == cache.manifest["splits"][name]["blocks"]
    domains = {d["name"]: d["documents"] for d in found["domains"]}
    assert domains == {"ru": 26, "<b>&\x1b": 14, "(none)": 10}


def test_tokens_are_counted_the_same_in_parts_of_any_size(
    job: tuple[str, Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = prepare(job[1])
    documents = list(documents_in(cache))
    lengths = np.array([len(d) for d in documents])
    # as they lie: chunks of conversations begin at multiples of 8
    starts = np.zeros(len(documents), dtype=np.int64)
    files = cache.tokens()
    place = 0
    for i, document in enumerate(documents):
        while files[place : place + len(document)].tolist() != document:
            place += 1
        starts[i] = place
        place += len(document)
    chosen = np.arange(len(documents)) % 3 > 0
    right = np.bincount([t for d, c in zip(documents, chosen, strict=True) if c for t in d])
    for size in (1, 7, 100, 4_000_000):
        monkeypatch.setattr(looking, "PART_TOKENS", size)
        counts = count_tokens(files, starts[chosen], lengths[chosen], 300)
        assert counts[: len(right)].tolist() == right.tolist()


def test_a_page_is_written_and_escaped(job: tuple[str, Data], tmp_path: Path) -> None:
    file, data = job
    prepare(data)
    code, out, _ = types("data", "stats", file)
    assert code == 0
    assert f"written: {tmp_path / 'small-data.html'}" in out
    assert "tokens in a document" in out
    page = (tmp_path / "small-data.html").read_text()
    assert "<script" not in page
    assert "&lt;b&gt;&amp;\\x1b" in page
    assert "exact duplicates: 1 dropped" in page
    assert types("data", "stats", file, "-o", "other.html")[0] == 0
    assert (tmp_path / "other.html").is_file()


def test_a_run_is_looked_at_when_its_sources_are_gone(
    job: tuple[str, Data], tmp_path: Path
) -> None:
    file, data = job
    cache = prepare(data)
    add_run("r1", data, ended=True)
    before = types_json("data", "stats", file)
    (tmp_path / "a.jsonl").unlink()
    for name in ("r1", str(cache.root), cache.root.name[:6]):
        assert types_json("data", "stats", name) == before
    code, out, err = types("data", "dropped", "r1")
    assert code == 0
    assert "the sources are no longer what they were" in err
    assert "data.sources[0], file 1, at " in out


def test_data_that_is_not_prepared_is_told(job: tuple[str, Data]) -> None:
    file, data = job
    for command in ("stats", "dropped"):
        code, _, err = types("data", command, file)
        assert code == 2
        assert "is not there\n  it is prepared by: clusterlm submit" in err
    prepare(data)
    code, _, err = types("data", "stats", file, "--set", "data.seed=3")
    assert (code, "data.seed: 0 then, 3 now" in err) == (2, True)


def test_near_duplicates_are_found_again_without_what_was_remembered(tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "a.jsonl", 30, length=60)
    file, data = write_job(tmp_path, text_source(texts), dedup={"near": {"threshold": 0.8}})
    cache = prepare(data)
    before = types_json("data", "stats", file)
    for path in (cache.root.parent / "chosen").iterdir():
        path.unlink()
    assert (
        stats_of(cache.root, data, workers=1, report=lambda line: None).to_json()["tokens"]["total"]
        == before["tokens"]["total"]
    )
    assert before["sources"][0]["documents"] == cache.manifest["sources"][0]["kept"]


def test_records_left_out_are_listed_with_place_and_counted(
    job: tuple[str, Data], tmp_path: Path
) -> None:
    file, data = job
    prepare(data)
    code, out, _ = types("data", "dropped", file)
    assert code == 0
    lines = out.splitlines()
    assert lines[:3] == [
        "a.jsonl:42  empty  the text is empty",
        "a.jsonl:43  empty  the text is empty",
        "b.jsonl:1  empty  no turns",
    ]
    assert [line.split()[:2] for line in lines[3:]] == [["empty", "3"], ["duplicate", "1"]]
    found = types_json("data", "dropped", file, "--source", "0", "-n", "1")
    assert found["counts"] == {"empty": 2, "duplicate": 1}
    assert [r["place"] for r in found["records"]] == [f"{tmp_path / 'a.jsonl'}:42"]
    assert types_json("data", "dropped", file, "--reason", "no_answer")["counts"] == {}
    code, _, err = types("data", "dropped", file, "--reason", "emty")
    assert (code, "did you mean `empty`?" in err) == (2, True)
    assert types("data", "dropped", file, "--source", "1", "--reason", "duplicate")[1] == (
        "no record was left out\n"
    )


def test_what_the_plan_left_out_is_counted_by_split(tmp_path: Path) -> None:
    long = [{"role": "user", "content": "a"}, {"role": "assistant", "content": sentence(1, 90)}]
    chats = write_chats(tmp_path / "c.jsonl", 5)
    with chats.open("a") as handle:
        handle.write(json.dumps({"messages": long}) + "\n")
    file, data = write_job(
        tmp_path,
        chat_source(chats),
        text_source(write_texts(tmp_path / "t.jsonl", 5)),
        block_size=128,
        packing="best_fit",
    )
    train = prepare(data).manifest["splits"]["train"]["dropped"]
    assert train == {"overlong": 1}
    told = "overlong          1  longer than a block (train, counted only)\n"
    assert types("data", "dropped", file)[1] == told
    assert types("data", "dropped", file, "--reason", "overlong")[1] == told
    found = types_json("data", "dropped", file)
    assert (found["counts"], found["planned"]) == ({}, {"train": train})
    nothing = "no record was left out\n"
    assert types("data", "dropped", file, "--reason", "truncated")[1] == nothing
    assert types("data", "dropped", file, "--source", "1")[1] == nothing, "it is of no one source"
