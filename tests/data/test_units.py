from __future__ import annotations

import gzip
import json
import os
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterlm.data import hashes
from clusterlm.data.files import SourceFile, list_files
from clusterlm.data.formats import chunks, units
from clusterlm.data.formats.units import chunk_key, counts_records
from clusterlm.data.hashes import HashMemo, hash_file
from clusterlm.data.sources import Chunk, Unit, read_unit, units_of
from clusterlm.spec.sources import TextSource

KINDS = ["txt", "long.txt", "jsonl", "jsonl.gz", "csv", "parquet", "txt.gz"]
Shape = tuple[str, int]


def _write(folder: Path, number: int, kind: str, size: int) -> None:
    path = folder / f"{number:03}.{kind}"
    rows = [{"text": f"{number} {i} " + "x" * (i % 9)} for i in range(size)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if kind == "parquet":
        pq.write_table(pa.table({"text": [row["text"] for row in rows]}), path, row_group_size=4)
    elif kind == "csv":
        path.write_text("\n".join(["text", *(row["text"] for row in rows)]))
    else:
        path.write_bytes(gzip.compress(lines) if kind.endswith("gz") else lines)


def _files(folder: Path) -> list[SourceFile]:
    return list_files(TextSource(kind="text", path=str(folder)))


def _chunks(unit: Unit) -> list[Chunk]:
    """The chunks of a unit that hold something; of an open file, the first."""
    if not unit.is_open_ended:
        return list(unit.chunks())
    return [next(unit.chunks())]


class Cuts:
    def next_cut(self, buffer: Any, offset: int) -> int:
        return min(offset, len(buffer))


shapes = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 30)), min_size=1, max_size=8)
sizes = st.tuples(st.integers(1, 500), st.integers(1, 2000), st.integers(50, 800))


@settings(deadline=None, max_examples=60)
@given(shapes=shapes, sizes=sizes, in_order=st.booleans(), cuts=st.booleans())
def test_units_part_the_files_in_order_and_each_record_is_in_one(
    shapes: list[Shape], sizes: tuple[int, int, int], in_order: bool, cuts: bool
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for number, (kind, size) in enumerate(shapes):
            # a table without rows is in no unit, and yet has bytes
            _write(Path(folder), number, kind, size or int(kind == "parquet"))
        files = _files(Path(folder))
        whole = [
            (record.file, record.value)
            for unit in units_of(files, 3, cuts_texts=False)
            for record in read_unit(unit)
        ]
        patch.setattr(chunks, "CHUNK_BYTES", sizes[0])
        patch.setattr(units, "UNIT_BYTES", sizes[1])
        found = units_of(files, 3, cuts_texts=cuts, in_order=in_order)
        assert len(found) <= 1 or not in_order
        records: list[tuple[int, Any]] = []
        for unit in found:
            assert all(files[unit.first_file + i] == file for i, file in enumerate(unit.files))
            for record in read_unit(unit, Cuts()):
                is_text = isinstance(record.value, str)
                if is_text and records and records[-1][0] == record.file:
                    # a further piece of the same text
                    file, value = records.pop()
                    records.append((file, value + str(record.value)))
                else:
                    records.append((record.file, record.value))
        assert records == whole
        assert sum(unit.num_bytes for unit in found) == sum(
            file.num_bytes for file in files if file.num_bytes
        )
        for unit in found:
            assert len(unit.parts) == 1 or unit.num_bytes <= sizes[1] or in_order
            assert len(unit.parts) == 1 or not unit.is_open_ended or in_order


@settings(deadline=None, max_examples=25)
@given(shapes=shapes, more=shapes, sizes=sizes, appended=st.integers(0, 12))
def test_what_is_added_at_the_end_leaves_all_but_the_last_unit_as_it_was(
    shapes: list[Shape], more: list[Shape], sizes: tuple[int, int, int], appended: int
) -> None:
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name) / "files"
        folder.mkdir()
        patch.setattr(chunks, "CHUNK_BYTES", sizes[0])
        patch.setattr(units, "UNIT_BYTES", sizes[1])
        for number, (kind, size) in enumerate([*shapes, ("jsonl", 9)]):
            _write(folder, number, kind, size)
        memo = HashMemo(Path(name) / "memo.json")
        before = [(unit, unit.key_parts(memo)) for unit in units_of(_files(folder), 0)]
        keys_before = [chunk_key(chunk) for chunk in _chunks(before[-1][0])]
        rows = "".join(json.dumps({"text": f"new {i}"}) + "\n" for i in range(appended))
        with (folder / f"{len(shapes):03}.jsonl").open("a") as handle:
            handle.write(rows)
        for number, (kind, size) in enumerate(more, len(shapes) + 1):
            _write(folder, number, kind, size)
        after = units_of(_files(folder), 0)
        for (old, keys), new in list(zip(before, after, strict=False))[:-1]:
            if old is not before[-1][0]:
                assert new.key_parts(memo) == keys
                assert new.parts == old.parts
        # of the last unit, all but the chunk that was not full; a file that has grown may begin a
        # unit of its own, and its chunks are the same there
        later = [chunk for unit in after[len(before) - 1 :] for chunk in _chunks(unit)]
        same = [chunk_key(chunk) for chunk in later][: len(keys_before)]
        assert same[: len(keys_before) - 1] == keys_before[:-1]


def test_an_appended_file_keeps_its_earlier_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 100)
    path = tmp_path / "a.jsonl"

    def spans() -> list[tuple[int, int, int, bytes]]:
        [unit] = units_of(_files(tmp_path), 0)
        data = path.read_bytes()
        return [(c.index, c.start, c.end, data[c.start : c.end]) for c in unit.chunks()]

    path.write_text("".join(f'{{"a": {i}}}\n' for i in range(100)))
    before = spans()
    with path.open("a") as handle:
        handle.write('{"a": "more"}\n' * 30)
    after = spans()
    assert after[: len(before) - 1] == before[:-1]
    assert len(after) > len(before)


def test_the_key_tells_when_a_line_goes_on_behind_the_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 10)
    monkeypatch.setattr(units, "UNIT_BYTES", 10)
    memo = HashMemo(tmp_path / "memo.json")
    keys = []
    for text in ('{"abc": 1}', '{"abc": 1}\n', '{"abc": 1} \n', '{"abc": 1}\n{"b": 2}\n'):
        (tmp_path / "a.jsonl").write_text(text)
        keys.append(units_of(_files(tmp_path), 0)[0].key_parts(memo))
    assert keys[1] == keys[3]
    assert len({str(key) for key in keys}) == 3


def test_keys_tell_content_and_form_and_not_names_or_times(tmp_path: Path) -> None:
    memo = HashMemo(tmp_path / "memo.json")

    def key(name: str, data: bytes) -> list[str]:
        folder = tmp_path / f"{name}.d"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        os.utime(folder / name, (time.time() - 1000, time.time() - 1000))
        [unit] = units_of(_files(folder), 0)
        return unit.key_parts(memo)

    data = b"[1]\n"
    assert key("a.jsonl", data) == key("b.jsonl", data) == key("c.json.d.jsonl", data)
    assert key("a.csv", data) == key("b.csv", data)
    forms = ["a.jsonl", "a.csv", "a.tsv", "a.json", "a.txt", "a.csv.gz", "a.txt.gz", "a.jsonl.gz"]
    assert len({str(key(name, data)) for name in forms}) == len(forms)
    assert key("a.csv", b"a\n") != key("a.csv", b"b\n")


def test_a_large_file_is_hashed_once_for_all_its_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "STRIPE_BYTES", 64)
    monkeypatch.setattr(units, "UNIT_BYTES", 64)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 32)
    real = time.time_ns
    monkeypatch.setattr("clusterlm.data.hashes.time.time_ns", lambda: real() + 10 * 10**9)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"a": {i}}}\n' for i in range(50)))
    memo = HashMemo(tmp_path / "memo.json")
    whole = memo.hash_of(path)
    memo.save()
    monkeypatch.setattr(hashes, "hash_range", lambda *_: pytest.fail("read again"))
    memo = HashMemo(tmp_path / "memo.json")
    assert memo.hash_of(path) == whole
    found = units_of([SourceFile(path, "a.jsonl", path.stat().st_size)], 0)
    keys = [part for unit in found for part in unit.key_parts(memo)]
    assert len(keys) == len(set(keys)) == -(-path.stat().st_size // 64)


def test_small_texts_are_read_in_groups_and_large_ones_in_pieces(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"{i:02}.txt").write_text("x" * 400_000)
    (tmp_path / "99.txt").write_text("x" * (12 << 20))
    found = units_of(_files(tmp_path), 0)
    groups = [chunk for unit in found for chunk in unit.chunks()]
    assert [len(chunk.files) for chunk in groups] == [10, 10, 1, 1, 1]
    assert [chunk.is_piece for chunk in groups] == [False, False, True, True, True]
    assert [chunk.is_last for chunk in groups[2:]] == [False, False, True]
    assert [chunk.first_file for chunk in groups] == [0, 10, 20, 20, 20]
    [whole] = list(units_of(_files(tmp_path), 0, cuts_texts=False)[0].chunks())[2:]
    assert (whole.is_piece, whole.num_bytes) == (False, 12 << 20)


def test_a_large_table_is_several_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", 2000)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 500)
    _write(tmp_path, 0, "parquet", 500)
    found = units_of(_files(tmp_path), 0)
    assert len(found) > 3
    spans = [(chunk.start, chunk.end) for unit in found for chunk in unit.chunks()]
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert (spans[0][0], spans[-1][1]) == (0, 500)
    memo = HashMemo(tmp_path / "memo.json")
    assert len({str(unit.key_parts(memo)) for unit in found}) == len(found)


def test_a_source_of_which_only_some_is_taken_is_counted() -> None:
    def source(**options: Any) -> TextSource:
        return TextSource(kind="text", path="x", **options)

    assert counts_records(source(max_documents=5))
    assert counts_records(source(split="train[:5]"))
    assert not counts_records(source(split="train"))


def test_ranges_hash_as_the_file_that_holds_only_them(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    (tmp_path / "b").write_bytes(b"345")
    assert hashes.hash_range(tmp_path / "a", 3, 6) == hash_file(tmp_path / "b")
