"""What an attacker tried: limits over long texts, remembered choices, damaged notes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clusterlm.data.cache import Cache
from clusterlm.errors import DataError
from tests.data.corpus import (
    cache_at,
    data_of,
    documents_in,
    files_of,
    planned_documents,
    prepare,
    sentence,
    text_source,
    write_rows,
    write_texts,
)


@pytest.fixture
def long_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two texts that are read in pieces, with a short one between them."""
    monkeypatch.setattr("clusterlm.data.formats.chunks.CHUNK_BYTES", 400)
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, count in (("a", 60), ("b", 1), ("c", 60)):
        text = " ".join(sentence(ord(name) * 100 + i) for i in range(count))
        (folder / f"{name}.txt").write_text(text)
    return folder


def _kept(cache: Cache) -> int:
    return int(cache.manifest["counts"]["kept"])


@pytest.mark.parametrize(
    "asked", [{"max_documents": 1}, {"split": "[:1]"}, {"split": "[1:2]"}, {"split": "[-2:]"}]
)
def test_a_text_in_pieces_is_one_record_and_never_taken_in_part(
    long_texts: Path, tokenizer: dict[str, str], asked: dict[str, Any]
) -> None:
    everything = prepare(data_of(text_source(long_texts), tokenizer=tokenizer, block_size=8))
    rows = [d for d in documents_in(everything)]
    sizes = {row["place"]: row["tokens"] for row in everything.manifest["sources"]}
    cache = prepare(data_of(text_source(long_texts, **asked), tokenizer=tokenizer, block_size=8))
    wanted = {"[:1]": 1, "[1:2]": 1, "[-2:]": 2}.get(str(asked.get("split")), 1)
    assert _kept(cache) == wanted
    eos = cache.manifest["eos_id"]
    ends = [row for row in rows if row[-1] == eos]
    assert len(ends) == 3
    if wanted == 2:
        assert cache.manifest["counts"]["tokens"] < sizes["data.sources[0]"]


def test_a_filter_looks_at_a_whole_text(long_texts: Path, tokenizer: dict[str, str]) -> None:
    source = text_source(long_texts, max_chars=1000)
    cache = prepare(data_of(source, tokenizer=tokenizer, block_size=8))
    assert _kept(cache) == 1
    assert cache.manifest["counts"]["dropped"] == {"too_long": 2}


def test_a_choice_is_not_remembered_for_another_split(
    tmp_path: Path, tokenizer: dict[str, str]
) -> None:
    paths = [write_texts(tmp_path / f"{name}.jsonl", 30) for name in "abc"]
    for path, start in zip(paths, (0, 30, 60), strict=True):
        write_rows(path, ({"text": sentence((start + i) % 45, 40)} for i in range(30)))
    mixes = [(0.5, 0.0, 0.0), (0.5, 0.5, 0.0), (0.0, 0.5, 0.5)]
    for shares in mixes:
        sources = [
            text_source(path, validation=share) for path, share in zip(paths, shares, strict=True)
        ]
        data = data_of(*sources, tokenizer=tokenizer, dedup={"decontaminate": {}})
        with cache_at(tmp_path / f"fresh-{shares}"):
            alone = planned_documents(prepare(data))
        assert planned_documents(prepare(data)) == alone


def test_what_stands_around_a_text_is_part_of_its_key(
    tmp_path: Path, tokenizer: dict[str, str]
) -> None:
    folder = Path(tokenizer["name"])
    config = json.loads((folder / "tokenizer_config.json").read_text())
    source = text_source(write_texts(tmp_path / "a.jsonl", 30))
    ends = []
    for eos in ("<|endoftext|>", "<|pad|>"):
        (folder / "tokenizer_config.json").write_text("{}")
        (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": eos}))
        cache = prepare(data_of(source, tokenizer=tokenizer))
        ends.append({document[-1] for document in documents_in(cache)})
        assert ends[-1] == {cache.manifest["eos_id"]}
    assert ends[0] != ends[1]
    assert config["eos_token"]


def test_stop_stops_also_where_another_run_skipped(
    tmp_path: Path, tokenizer: dict[str, str]
) -> None:
    rows = [{"text": sentence(i)} for i in range(30)]
    path = write_rows(tmp_path / "a.jsonl", [*rows[:20], {"body": 1}, *rows[20:]])
    prepare(data_of(text_source(path), tokenizer=tokenizer, on_bad_record="skip"))
    for block_size in (32, 64):
        data = data_of(text_source(path), tokenizer=tokenizer, block_size=block_size)
        with pytest.raises(DataError, match=r"a\.jsonl:21: the field text is missing"):
            prepare(data)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"{}", b"nonsense"])
@pytest.mark.parametrize("name", ["chosen/*.npz", "shards/*/shard.json", "tokenizers/*/*.json"])
def test_a_damaged_note_in_the_cache_is_made_again(
    tmp_path: Path, cache_folder: Path, tokenizer: dict[str, str], name: str, damage: bytes
) -> None:
    source = text_source(write_texts(tmp_path / "a.jsonl", 40))
    prepare(data_of(source, tokenizer=tokenizer, dedup={"near": {}}))
    found = list(cache_folder.glob(name))
    assert found
    for path in found:
        path.write_bytes(damage)
    changed = data_of(source, tokenizer=tokenizer, dedup={"near": {}}, block_size=64)
    again = files_of(prepare(changed).root)
    with cache_at(tmp_path / "fresh"):
        assert files_of(prepare(changed).root) == again
