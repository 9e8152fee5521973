"""Shards: made once, found again, extended by what is new, whoever makes them."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterlm.data import encode
from clusterlm.data.cache import Cache
from clusterlm.data.fingerprint import describe
from clusterlm.data.preprocess import preprocess, run_task
from clusterlm.data.store.known import known_chunks
from clusterlm.data.store.shards import damage_of, open_shard
from clusterlm.errors import DataError
from clusterlm.paths import CachePaths
from clusterlm.spec.job import Job
from tests.data.corpus import (
    cache_at,
    chat_source,
    data_of,
    decoded,
    documents_in,
    files_of,
    fingerprint_of,
    prepare,
    sentence,
    stream_of,
    text_source,
    write_chats,
    write_rows,
    write_texts,
)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The chunks that are really encoded, and not copied."""
    seen: list[str] = []
    real = encode.Encoder.encode_chunk

    def spy(self: encode.Encoder, chunk: Any, key: str = "") -> Any:
        seen.append(f"{chunk.files[0].name}:{chunk.start}")
        return real(self, chunk, key)

    monkeypatch.setattr(encode.Encoder, "encode_chunk", spy)
    return seen


def test_another_block_size_split_or_mix_encodes_nothing(
    tmp_path: Path, tokenizer: dict[str, str], encoded: list[str]
) -> None:
    source = text_source(write_texts(tmp_path / "a.jsonl", 40))
    prepare(data_of(source, tokenizer=tokenizer))
    assert encoded
    encoded.clear()
    changes: list[dict[str, Any]] = [
        {"block_size": 64},
        {"packing": "best_fit"},
        {"validation": {"fraction": 0.2}},
        {"seed": 5},
        {"dedup": {"exact": True, "near": {}}},
    ]
    for change in changes:
        prepare(data_of(source, tokenizer=tokenizer, **change))
    prepare(data_of({**source, "epochs": 2.0}, tokenizer=tokenizer))
    assert encoded == []


def test_what_is_appended_is_all_that_is_encoded(
    tmp_path: Path,
    tokenizer: dict[str, str],
    encoded: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clusterlm.data.formats.chunks.CHUNK_BYTES", 1000)
    folder = tmp_path / "texts"
    write_texts(folder / "a.jsonl", 40)
    write_texts(folder / "c.jsonl", 20)
    data = data_of(text_source(folder), tokenizer=tokenizer)
    first = stream_of(prepare(data))
    encoded.clear()
    # a file between the others
    rows = [{"text": sentence(i, 12)} for i in range(900, 920)]
    write_rows(folder / "b.jsonl", rows)
    more = prepare(data)
    assert {chunk.partition(":")[0] for chunk in encoded} == {"b.jsonl"}
    assert len(stream_of(more)) > len(first)
    encoded.clear()
    # lines behind the others
    with (folder / "c.jsonl").open("a") as handle:
        handle.write(json.dumps({"text": sentence(5000)}) + "\n")
    grown = prepare(data)
    assert {chunk.partition(":")[0] for chunk in encoded} == {"c.jsonl"}
    assert len(encoded) <= 2
    # the same as if nothing had been there before
    with cache_at(tmp_path / "fresh"):
        assert stream_of(prepare(data)) == stream_of(grown)


def test_a_run_that_was_ended_goes_on_at_the_chunk(
    tmp_path: Path,
    tokenizer: dict[str, str],
    encoded: list[str],
    monkeypatch: pytest.MonkeyPatch,
    cache_folder: Path,
) -> None:
    monkeypatch.setattr("clusterlm.data.formats.chunks.CHUNK_BYTES", 500)
    data = data_of(text_source(write_texts(tmp_path / "a.jsonl", 60)), tokenizer=tokenizer)
    root = CachePaths.of(fingerprint_of(data)).root

    def stop(progress: Any) -> None:
        if progress.text.startswith("tokenizing") and progress.done > 3000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess(data, root, workers=1, report=stop)
    before = set(encoded)
    encoded.clear()
    known = known_chunks(cache_folder / "shards", "uint16")
    assert len(known) >= 4
    cache = prepare(data)
    assert not {*list(encoded)} & set(list(before)[: len(known)]) or len(encoded) < 14
    with cache_at(tmp_path / "fresh"):
        assert files_of(prepare(data).root.parent / "shards") == files_of(cache_folder / "shards")
    assert stream_of(cache)


def test_a_damaged_chunk_is_encoded_and_not_copied(
    tmp_path: Path,
    tokenizer: dict[str, str],
    encoded: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clusterlm.data.formats.chunks.CHUNK_BYTES", 1000)
    path = write_texts(tmp_path / "a.jsonl", 40)
    data = data_of(text_source(path), tokenizer=tokenizer)
    cache = prepare(data)
    (shard,) = cache.shards
    good = shard.tokens.read_bytes()
    shard.tokens.write_bytes(b"\xff" + good[1:])
    stored = open_shard(shard.tokens.parent)
    assert stored is not None
    assert "chunk 0 is not what was written" in str(damage_of(stored))
    encoded.clear()
    with path.open("a") as handle:
        handle.write(json.dumps({"text": "one more"}) + "\n")
    again = prepare(data)
    assert "a.jsonl:0" in encoded
    assert "a.jsonl:1000" not in encoded
    assert again.shards[0].tokens.read_bytes().startswith(good)


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(
    lengths=st.lists(st.integers(0, 40), min_size=25, max_size=40),
    chunk_bytes=st.integers(60, 4000),
    unit_chunks=st.integers(1, 4),
    workers=st.sampled_from([1, 2]),
)
def test_any_chunking_gives_the_same_documents(
    lengths: list[int], chunk_bytes: int, unit_chunks: int, workers: int
) -> None:
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        rows = [{"text": sentence(i, n)} for i, n in enumerate(lengths)]
        texts = text_source(write_rows(folder / "a.jsonl", rows))
        chats = chat_source(write_chats(folder / "c.jsonl", 8))
        data = data_of(texts, chats, block_size=48)
        with cache_at(folder / "whole"):
            whole = prepare(data)
        patch.setattr("clusterlm.data.formats.chunks.CHUNK_BYTES", chunk_bytes)
        patch.setattr("clusterlm.data.formats.units.UNIT_BYTES", chunk_bytes * unit_chunks)
        with cache_at(folder / "parts"):
            parts = prepare(data, workers=workers)
        assert list(documents_in(parts)) == list(documents_in(whole))
        for ours, theirs in zip(parts.split("train"), whole.split("train"), strict=True):
            for column in ours:
                assert np.array_equal(ours[column], theirs[column])


def test_a_file_that_is_written_while_it_is_read_leaves_no_shard(
    tmp_path: Path, tokenizer: dict[str, str], cache_folder: Path
) -> None:
    path = write_texts(tmp_path / "a.jsonl", 60)
    data = data_of(text_source(path), tokenizer=tokenizer)
    root = CachePaths.of(fingerprint_of(data)).root

    def write(progress: Any) -> None:
        if progress.text.startswith("tokenizing"):
            path.write_text(path.read_text().replace("quick", "quack"))

    with pytest.raises(DataError, match=r"a\.jsonl .*changed while it was read; start again"):
        preprocess(data, root, workers=1, report=write)
    assert list((cache_folder / "shards").iterdir()) == []


def test_tasks_share_the_shards_and_the_rest_is_found(
    tmp_path: Path,
    tokenizer: dict[str, str],
    encoded: list[str],
    monkeypatch: pytest.MonkeyPatch,
    cache_folder: Path,
) -> None:
    monkeypatch.setattr("clusterlm.data.formats.chunks.CHUNK_BYTES", 500)
    monkeypatch.setattr("clusterlm.data.formats.units.UNIT_BYTES", 1000)
    texts = text_source(write_texts(tmp_path / "a.jsonl", 60))
    chats = chat_source(write_chats(tmp_path / "c.jsonl", 20))
    data = data_of(texts, chats, tokenizer=tokenizer, block_size=96)
    with cache_at(tmp_path / "alone"):
        alone = files_of(prepare(data).root.parent)
    job = Job.model_validate({"name": "r", "data": data.model_dump(mode="json")})
    run = tmp_path / "run"
    run.mkdir()
    (run / "spec.json").write_text(job.model_dump_json())
    lock = {"fingerprint": fingerprint_of(data), "fingerprint_parts": describe(data)}
    (run / "lock.json").write_text(json.dumps(lock))
    shares = []
    for task in range(3):
        encoded.clear()
        run_task(run, task, 3)
        shares.append(set(encoded))
    assert all(shares)
    assert not shares[0] & shares[1]
    encoded.clear()
    cache = prepare(data)
    assert encoded == []
    assert files_of(cache_folder) == alone
    assert isinstance(cache, Cache)


def test_rows_and_limits_are_taken_in_reading_order(
    tmp_path: Path, tokenizer: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusterlm.data.formats.chunks.CHUNK_BYTES", 400)
    path = write_texts(tmp_path / "a.jsonl", 40)
    asked = {"[5:9]": range(5, 9), "[-3:]": range(37, 40), "[50%:60%]": range(20, 24)}
    for split, wanted in asked.items():
        source = text_source(path, split=split)
        cache = prepare(data_of(source, tokenizer=tokenizer, packing="padded", block_size=64))
        found = {decoded(cache, _without_padding(block, cache)) for block in cache.split("train")}
        assert found == {sentence(i) for i in wanted}, split
        assert cache.manifest["counts"]["documents"] >= len(wanted)


def _without_padding(block: dict[str, Any], cache: Cache) -> list[int]:
    ids = block["input_ids"].tolist()
    return ids[: ids.index(cache.manifest["eos_id"])]
