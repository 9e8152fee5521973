from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from clusterlm.data.cache import IGNORE_INDEX, Cache
from clusterlm.data.formats import chunks
from clusterlm.data.preprocess import preprocess
from clusterlm.data.tokens.engines import TokenizersEngine
from clusterlm.errors import DataError
from clusterlm.paths import CachePaths
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


def _samples(cache: Cache, split: str = "train") -> list[dict[str, np.ndarray]]:
    return list(cache.split(split))


PACKINGS = ["concat", "document_start", "paragraph_start", "best_fit", "padded"]
SPECS = st.fixed_dictionaries(
    {
        "block_size": st.sampled_from([8, 16, 33]),
        "packing": st.sampled_from(PACKINGS),
        "seed": st.integers(0, 3),
        "validation": st.sampled_from([{"fraction": 0.0}, {"fraction": 0.3}]),
    }
)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(lengths=st.lists(st.integers(1, 60), min_size=12, max_size=30), spec=SPECS)
def test_every_token_is_in_one_block_or_counted_as_dropped(
    lengths: list[int], spec: dict[str, Any]
) -> None:
    with TemporaryDirectory() as folder, cache_at(Path(folder) / "cache"):
        rows = [{"text": sentence(i, n)} for i, n in enumerate(lengths)]
        cache = prepare(data_of(text_source(write_rows(Path(folder) / "a.jsonl", rows)), **spec))
        held: Counter[int] = Counter()
        dropped = 0
        for name in cache.splits:
            counts, size = cache.manifest["splits"][name], cache.manifest["block_size"]
            dropped += sum(counts["lost"].values())
            assert counts["tokens"] + counts["padding"] == counts["blocks"] * size
            padding = 0
            for sample in _samples(cache, name):
                assert {len(array) for array in sample.values()} == {size}
                ids = sample["input_ids"].tolist()
                padding += ids.count(cache.manifest["pad_id"])
                held.update(i for i in ids if i != cache.manifest["pad_id"])
            assert padding == counts["padding"]
        assert held <= Counter(stream_of(cache))
        assert held.total() + dropped == cache.manifest["counts"]["tokens"]
        texts = {decoded(cache, document[:-1]) for document in documents_in(cache)}
        assert texts == {row["text"] for row in rows}


def test_the_same_seed_gives_the_same_blocks_and_another_one_others(tmp_path: Path) -> None:
    source = text_source(write_texts(tmp_path / "a.jsonl", 40))
    blocks = {}
    for seed in (0, 1):
        for folder in ("one", "two"):
            with cache_at(tmp_path / f"{folder}-{seed}"):
                files = files_of(prepare(data_of(source, seed=seed)).root.parent)
                files = {Path(name).name: content for name, content in files.items()}
                blocks.setdefault(seed, files)
                assert files == blocks[seed]
    assert blocks[0]["tokens.bin"] == blocks[1]["tokens.bin"]
    assert blocks[0]["train.starts.npy"] != blocks[1]["train.starts.npy"]


def test_any_number_of_workers_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 500)
    folder = tmp_path / "texts"
    write_texts(folder / "a.jsonl", 60)
    (folder / "b.txt").write_text(sentence(1, 300))
    chats = chat_source(write_chats(tmp_path / "chats.jsonl", 30))
    data = data_of(
        text_source(folder, epochs=1.5), chats, block_size=96, validation={"fraction": 0.2}
    )
    found = []
    for workers in (1, 2, 3):
        with cache_at(tmp_path / f"cache-{workers}"):
            monkeypatch.setattr("clusterlm.data.encoding.SMALL_BYTES", 0)
            found.append(files_of(prepare(data, workers=workers).root.parent))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("kind", ["text", "chat"])
def test_the_last_token_of_a_document_never_predicts_the_next(tmp_path: Path, kind: str) -> None:
    if kind == "text":
        source = text_source(write_texts(tmp_path / "a.jsonl", 40, length=3))
    else:
        source = chat_source(write_chats(tmp_path / "a.jsonl", 20))
    cache = prepare(data_of(source, packing="best_fit", block_size=200))
    num_documents = 0
    for sample in _samples(cache):
        starts = np.flatnonzero(sample["position_ids"] == 0)
        num_documents += len(starts)
        assert (sample["labels"][starts] == IGNORE_INDEX).all()
        # positions count up by one between the starts
        steps = np.diff(sample["position_ids"])
        assert set(steps.tolist()) - {1} <= {-p for p in sample["position_ids"].tolist()}
    assert num_documents >= cache.manifest["counts"]["kept"]


def test_one_stream_has_plain_positions_and_every_label(tmp_path: Path) -> None:
    source = text_source(write_texts(tmp_path / "a.jsonl", 40))
    cache = prepare(data_of(source, isolate_documents=False))
    for sample in _samples(cache):
        assert sample["position_ids"].tolist() == list(range(32))
        assert sample["labels"].tolist()[1:] == sample["input_ids"].tolist()[1:]


def test_a_document_seen_before_is_dropped_from_the_training_and_not_from_the_validation(
    tmp_path: Path,
) -> None:
    train = write_texts(tmp_path / "train.jsonl", 60)
    held_back = write_texts(tmp_path / "held.jsonl", 10)
    data = data_of(
        text_source(train),
        text_source(train),
        dedup={"exact": True},
        validation={"sources": [text_source(held_back)]},
    )
    cache = prepare(data)
    kept = {row["place"]: (row["kept"], row["dropped"]) for row in cache.manifest["sources"]}
    assert kept == {
        "data.validation.sources[0]": (10, {}),
        "data.sources[0]": (50, {"duplicate": 10}),
        "data.sources[1]": (0, {"duplicate": 60}),
    }
    assert cache.manifest["splits"]["validation"]["documents"] == 10


def test_two_epochs_show_a_source_twice_and_store_it_once(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.jsonl", 40)
    once = prepare(data_of(text_source(path), block_size=8)).manifest
    twice = prepare(data_of(text_source(path, epochs=2.0), block_size=8)).manifest
    half = prepare(data_of(text_source(path, epochs=0.5), block_size=8)).manifest
    assert twice["counts"]["tokens"] == once["counts"]["tokens"]
    blocks = once["splits"]["train"]["blocks"]
    assert twice["splits"]["train"]["blocks"] == pytest.approx(2 * blocks, abs=1)
    seen, left = half["splits"]["train"]["documents"], half["splits"]["train"]["dropped"]
    assert 5 < seen < 35
    assert seen + left["not_sampled"] == 40


def test_no_more_documents_than_asked_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 300)
    path = write_texts(tmp_path / "a.jsonl", 40)
    cache = prepare(data_of(text_source(path, max_documents=11)))
    assert cache.manifest["counts"]["kept"] == 11
    assert cache.manifest["counts"]["tokens"] < len(stream_of(cache)) or len(stream_of(cache))
    texts = [decoded(cache, document[:-1]) for document in documents_in(cache)][:11]
    assert texts == [sentence(i) for i in range(11)]


def test_a_validation_too_small_for_a_block_is_one_filled_up_block(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.jsonl", 60)
    cache = prepare(data_of(text_source(path), validation={"fraction": 0.001}, block_size=256))
    (sample,) = _samples(cache, "validation")
    counts = cache.manifest["splits"]["validation"]
    assert counts["padding"] == 256 - counts["tokens"] > 0
    assert (sample["labels"][counts["tokens"] :] == IGNORE_INDEX).all()
    assert (sample["input_ids"][counts["tokens"] :] == cache.manifest["pad_id"]).all()


def test_of_a_single_text_the_end_is_the_validation(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(" ".join(sentence(i) for i in range(60)))
    cache = prepare(data_of(text_source(path), validation={"fraction": 0.2}))
    splits = cache.manifest["splits"]
    tokens = {k: v["tokens"] + sum(v["lost"].values()) for k, v in splits.items()}
    assert tokens["validation"] == round(0.2 * cache.manifest["counts"]["tokens"])
    assert sum(tokens.values()) == cache.manifest["counts"]["tokens"]


def test_a_long_text_in_pieces_has_the_ids_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(sentence(i, 50) for i in range(60))
    (tmp_path / "book.txt").write_text(text)
    row = write_rows(tmp_path / "row.jsonl", [{"text": text}])
    whole = prepare(data_of(text_source(tmp_path / "book.txt")))
    monkeypatch.setattr(TokenizersEngine, "piece_bytes", 1000)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1500)
    with cache_at(tmp_path / "pieces"):
        pieces = prepare(data_of(text_source(tmp_path / "book.txt"), text_source(row)))
    tokenizer = Tokenizer.from_file(str(pieces.tokenizer_dir / "tokenizer.json"))
    assert stream_of(pieces) == [*tokenizer.encode(text).ids, 0] * 2
    assert whole.manifest["counts"]["kept"] == 1
    with cache_at(tmp_path / "again"):
        # the same text is the same document, whether it is a file or a row
        twice = prepare(
            data_of(text_source(tmp_path / "book.txt"), text_source(row), dedup={"exact": True})
        )
    assert twice.manifest["counts"]["dropped"] == {"duplicate": 1}


def test_a_long_text_in_pieces_that_was_seen_before_is_one_duplicate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 200)
    folder = tmp_path / "texts"
    folder.mkdir()
    text = " ".join(sentence(i) for i in range(20))
    (folder / "a.txt").write_text(text)
    (folder / "b.txt").write_text(text)
    (folder / "c.txt").write_text(sentence(99))
    cache = prepare(data_of(text_source(folder), dedup={"exact": True}, packing="padded"))
    assert cache.manifest["counts"]["dropped"] == {"duplicate": 1}
    assert cache.manifest["counts"]["kept"] == 2


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "no document is left to train on: 0 read"),
        ([{"text": ""}, {"text": " \n"}], r"2 read \(2 empty\)"),
        ([{"text": "a"}], "1 documents of 2 tokens fill no block of data.block_size 32"),
    ],
)
def test_nothing_to_train_on_is_told_in_numbers(
    tmp_path: Path, rows: list[dict[str, str]], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        prepare(data_of(text_source(write_rows(tmp_path / "a.jsonl", rows))))


def test_data_that_is_not_what_was_asked_for_is_refused(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.jsonl", 40)
    data = data_of(text_source(path))
    asked = fingerprint_of(data)
    write_texts(path, 41)
    with pytest.raises(DataError, match="not what was submitted"):
        preprocess(
            data, CachePaths.of(asked).root, workers=1, report=lambda progress: None, asked=asked
        )


def test_data_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.jsonl", 40)
    data = data_of(text_source(path))
    root = CachePaths.of(fingerprint_of(data)).root

    def report(progress: Any) -> None:
        if progress.text == "making blocks":
            write_texts(path, 41)

    with pytest.raises(DataError, match=r"changed while it was read: data\.sources\[0\]\.files"):
        preprocess(data, root, workers=1, report=report)
    assert not root.exists()


def test_progress_tells_the_megabytes(tmp_path: Path) -> None:
    data = data_of(text_source(write_texts(tmp_path / "a.jsonl", 40)))
    told: list[Any] = []
    preprocess(data, CachePaths.of(fingerprint_of(data)).root, workers=1, report=told.append)
    assert [p.text for p in told] == [
        "looking at the sources",
        "looking at the sources",
        "training the tokenizer on 5 kB",
        "choosing an engine",
        told[4].text,
        "choosing documents",
        "making blocks",
    ]
    assert re.fullmatch(r"tokenizing 5 kB of 5 kB, 0\.0 M tokens, .*/s", told[4].text)
    assert told[4].done == told[4].total == (tmp_path / "a.jsonl").stat().st_size


def test_the_manifest_says_what_it_was_made_of(tmp_path: Path) -> None:
    cache = prepare(data_of(text_source(write_texts(tmp_path / "a.jsonl", 40))))
    manifest = json.loads((cache.root / "manifest.json").read_text())
    assert manifest == cache.manifest
    assert manifest["dtype"] == "uint16"
    assert manifest["fingerprint"] == cache.root.name
    assert manifest["parts"]["data.block_size"] == 32
    (shard,) = manifest["shards"]
    assert manifest["counts"]["tokens"] * 2 == shard["files"]["tokens.bin"]
    assert set(manifest["files"]) == set(files_of(cache.root)) - {"manifest.json", "READY"}


def test_validation_sources_of_which_nothing_is_left_are_an_error(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.jsonl", 40)
    held_back = write_rows(tmp_path / "v.jsonl", [{"text": ""}])
    data = data_of(text_source(path), validation={"sources": [text_source(held_back)]})
    with pytest.raises(DataError, match=r"nothing is left to validate on: 1 read \(1 empty\)"):
        prepare(data)
