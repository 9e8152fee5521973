from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from clusterlm.data.files import list_files
from clusterlm.data.fingerprint import describe, differences
from clusterlm.data.formats.content import content_key
from clusterlm.data.formats.units import units_of
from clusterlm.data.hashes import MAX_REMEMBERED, HashMemo, hash_file
from clusterlm.errors import DataError
from clusterlm.spec.data import Data
from tests.data.corpus import (
    chat_source,
    data_of,
    fingerprint_of,
    text_source,
    write_chats,
    write_texts,
)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    write_texts(tmp_path / "texts" / "a.jsonl", 20)
    write_texts(tmp_path / "texts" / "b.jsonl", 10)
    return tmp_path / "texts"


def _age(path: Path, seconds: float = 100.0) -> None:
    for file in [path, *path.rglob("*")]:
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - seconds))


def test_the_same_data_elsewhere_and_later_has_the_same_fingerprint(texts: Path) -> None:
    here = fingerprint_of(data_of(text_source(texts)))
    elsewhere = texts.parent / "moved" / "away"
    shutil.copytree(texts, elsewhere)
    _age(elsewhere)
    assert fingerprint_of(data_of(text_source(elsewhere))) == here
    assert fingerprint_of(data_of(text_source(texts / "*.jsonl"))) == here
    assert len(here) == 32


@pytest.mark.parametrize(
    "changed",
    [
        {"block_size": 64},
        {"packing": "document_start"},
        {"seed": 1},
        {"dedup": {"exact": True}},
        {"on_bad_record": "quarantine"},
        {"packing": "padded"},
        {"isolate_documents": False},
        {"mix": {"temperature": 2.0}},
        {"dedup": {"near": {"threshold": 0.9}}},
        {"validation": {"fraction": 0.1}},
        {"tokenizer": {"train": {"vocab_size": 301}}},
        {"tokenizer": {"name": "gpt2"}},
        {"tokenizer": {"name": "gpt2", "revision": "abc"}},
    ],
)
def test_whatever_changes_the_tokens_changes_the_fingerprint(
    texts: Path, changed: dict[str, object]
) -> None:
    before = data_of(text_source(texts))
    after = data_of(text_source(texts), **changed)
    assert fingerprint_of(before) != fingerprint_of(after)
    place = f"data.{next(iter(changed))}"
    assert any(line.startswith(place) for line in differences(describe(before), describe(after)))


@pytest.mark.parametrize(
    "options",
    [
        *({"weight": 2.0}, {"epochs": 2.0}, {"max_documents": 3}, {"field": "other"}),
        *({"split": "[:5]"}, {"where": {"lang": "ru"}}, {"min_chars": 3}, {"domain": "lang"}),
    ],
)
def test_what_is_taken_of_a_source_changes_the_fingerprint(
    texts: Path, options: dict[str, object]
) -> None:
    assert fingerprint_of(data_of(text_source(texts))) != fingerprint_of(
        data_of(text_source(texts, **options))
    )


@pytest.mark.parametrize("same", [{"engine": "tokenizers"}, {"tasks": 3}, {"tasks": 7}])
def test_what_changes_no_block_changes_no_fingerprint(texts: Path, same: dict[str, object]) -> None:
    assert fingerprint_of(data_of(text_source(texts))) == fingerprint_of(
        data_of(text_source(texts), **same)
    )


def test_content_of_the_same_size_and_time_changes_the_fingerprint(texts: Path) -> None:
    file = texts / "a.jsonl"
    _age(texts)
    before = fingerprint_of(data_of(text_source(texts)))
    stat = file.stat()
    file.write_text(file.read_text().replace("quick", "quack"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint_of(data_of(text_source(texts))) != before


@pytest.mark.parametrize(
    ("name", "renamed", "options", "is_same"),
    [
        ("b.jsonl", "b.jsonl.gz", {}, False),
        ("b.bin", "b.gz", {}, False),
        ("b.csv", "b.tsv", {}, False),
        ("b.txt", "b.jsonl", {"documents": "line"}, False),
        ("b.json.gz", "b.jsonl.gz", {}, False),
        ("b.jsonl", "z.jsonl", {}, True),
        ("b.jsonl", "b.json", {}, True),
        ("b.txt", "b.md", {}, True),
        ("b.txt.gz", "b.md.gz", {"documents": "line"}, True),
        ("b.CSV", "c.csv", {}, True),
    ],
)
def test_a_new_name_counts_only_where_it_changes_how_the_file_is_read(
    tmp_path: Path, name: str, renamed: str, options: dict[str, object], is_same: bool
) -> None:
    folder = tmp_path / "renamed"
    folder.mkdir()
    (folder / "a.txt").write_text("plain")
    (folder / name).write_bytes(gzip.compress(b'{"text": "bbb"}\n'))

    def keys() -> tuple[str, list[str], list[str]]:
        data = data_of(text_source(folder, **options))
        memo = HashMemo(tmp_path / "memo.json")
        units = units_of(list_files(data.sources[0]), 0)
        # a packed file has chunks without end
        chunks = [chunk for unit in units for chunk in islice(unit.chunks(), 2)]
        return (
            fingerprint_of(data),
            [content_key(chunk, memo) for chunk in chunks],
            [key for unit in units for key in unit.key_parts(memo)],
        )

    before = keys()
    (folder / name).rename(folder / renamed)
    after = keys()
    assert [a == b for a, b in zip(before, after, strict=True)] == [is_same] * 3


def test_the_order_of_the_sources_counts_and_too_long_only_for_conversations(texts: Path) -> None:
    a, b = text_source(texts / "a.jsonl"), text_source(texts / "b.jsonl")
    assert fingerprint_of(data_of(a, b)) != fingerprint_of(data_of(b, a))
    assert fingerprint_of(data_of(a)) == fingerprint_of(data_of(a, overlong="truncate"))
    chats = chat_source(write_chats(texts / "c.jsonl", 3))
    assert fingerprint_of(data_of(chats)) != fingerprint_of(data_of(chats, overlong="truncate"))


def test_a_tokenizer_counts_by_its_content_and_not_by_the_weights_beside_it(texts: Path) -> None:
    folder = texts.parent / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    data = data_of(text_source(texts), tokenizer={"name": str(folder)})
    before = fingerprint_of(data)
    (folder / "model.safetensors").write_bytes(b"weights")
    assert fingerprint_of(data) == before
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    assert fingerprint_of(data) != before


def test_a_chat_template_counts_by_its_content(texts: Path) -> None:
    template = texts.parent / "template.jinja"
    template.write_text("{{ messages }}")
    tokenizer = {"train": {"vocab_size": 300}, "chat_template": str(template)}
    data = data_of(text_source(texts), tokenizer=tokenizer)
    before = fingerprint_of(data)
    template.write_text("{{ messages[0] }}")
    assert fingerprint_of(data) != before
    template.unlink()
    with pytest.raises(DataError, match="data.tokenizer.chat_template"):
        fingerprint_of(data)


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "a/b/c"])
def test_a_tokenizer_folder_that_is_not_there_is_no_hub_id(texts: Path, name: str) -> None:
    with pytest.raises(DataError, match="does not exist"):
        fingerprint_of(data_of(text_source(texts), tokenizer={"name": name}))


def test_a_folder_without_a_fast_tokenizer_is_told_how_to_make_one(texts: Path) -> None:
    with pytest.raises(DataError, match="save_pretrained"):
        fingerprint_of(data_of(text_source(texts), tokenizer={"name": str(texts)}))


def test_files_are_not_read_again(
    texts: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memo = HashMemo(cache_folder / ".hashes.json")
    # the files of the test are new, so let the clock of the memory stand some seconds ahead
    import time

    real = time.time_ns
    monkeypatch.setattr("clusterlm.data.hashes.time.time_ns", lambda: real() + 10 * 10**9)
    first = memo.hash_of(texts / "a.jsonl")
    memo.save()
    monkeypatch.setattr("clusterlm.data.hashes.hash_file", lambda path: pytest.fail("read again"))
    assert HashMemo(cache_folder / ".hashes.json").hash_of(texts / "a.jsonl") == first


def test_a_file_of_the_last_seconds_is_not_remembered(texts: Path, cache_folder: Path) -> None:
    fingerprint_of(data_of(text_source(texts)))
    assert not (cache_folder / ".hashes.json").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1, "files": {"x": [1]}}', '{"version": 2, "files": 3}']
)
def test_a_broken_memory_of_hashes_is_only_forgotten(
    texts: Path, cache_folder: Path, text: str
) -> None:
    cache_folder.mkdir()
    (cache_folder / ".hashes.json").write_text(text)
    assert HashMemo(cache_folder / ".hashes.json").hash_of(texts / "a.jsonl") == hash_file(
        texts / "a.jsonl"
    )


def test_the_memory_of_hashes_stays_bounded(texts: Path, cache_folder: Path) -> None:
    cache_folder.mkdir()
    entry = [1, 2, 3, "x"]
    full = {f"/f{i}": entry for i in range(MAX_REMEMBERED)}
    path = cache_folder / ".hashes.json"
    path.write_text(json.dumps({"version": 1, "files": full}))
    memo = HashMemo(path)
    memo._new = {"/newest": entry}
    memo.save()
    remembered = json.loads(path.read_text())["files"]
    assert len(remembered) == MAX_REMEMBERED
    assert "/newest" in remembered


def test_the_fingerprint_is_light() -> None:
    heavy = ("numpy", "tokenizers", "torch", "datasets", "orjson", "transformers", "jinja2")
    code = (
        f"import clusterlm.data.fingerprint, sys; print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_spec_survives_the_way_to_the_node(texts: Path) -> None:
    data = data_of(text_source(texts))
    again = Data.model_validate_json(data.model_dump_json())
    assert fingerprint_of(again) == fingerprint_of(data)
