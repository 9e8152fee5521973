from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterlm.data.files import list_files
from clusterlm.data.formats import chunks, read_lines, read_rows, read_tables, units
from clusterlm.data.formats.packed import BLOCK_BYTES, Unpacked
from clusterlm.data.sources import (
    Chunk,
    Record,
    bytes_taken,
    count_records,
    lines_of,
    place_of,
    read_records,
    read_unit,
    units_of,
)
from clusterlm.errors import DataError
from clusterlm.spec.sources import TextSource

Rows = list[dict[str, Any]]


def sentence(number: int) -> str:
    return f"{number} the quick brown fox jumps over {number % 7} lazy dogs."


class Cuts:
    """Cuts behind every space."""

    def next_cut(self, buffer: Any, offset: int) -> int:
        found = buffer[offset : len(buffer)].find(b" ")
        return len(buffer) if found < 0 else offset + found + 1


def read(path: Path, **options: Any) -> list[Record]:
    files = list_files(TextSource(kind="text", path=str(path)))
    return [
        record
        for unit in units_of(files, 0, **options)
        for record in read_unit(unit, Cuts() if options.get("cuts_texts", True) else None)
    ]


def values(path: Path) -> list[Any]:
    found = read(path)
    assert not [record.problem for record in found if record.problem]
    return [record.value for record in found]


def as_lines(rows: Rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_csv(rows: Rows, **options: Any) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), **options)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_parquet(rows: Rows) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, row_group_size=7)
    return out.getvalue()


def as_arrow(rows: Rows, new: Callable[..., Any] = pa.ipc.new_stream) -> bytes:
    table = pa.Table.from_pylist(rows)
    out = io.BytesIO()
    with new(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return out.getvalue()


def in_members(pack: Callable[[bytes], bytes], data: bytes) -> bytes:
    """Packed in three members one behind the other."""
    third = len(data) // 3
    return pack(data[:third]) + pack(data[third : 2 * third]) + pack(data[2 * third :])


FORMS: dict[str, Callable[[Rows], bytes]] = {
    "a.jsonl": as_lines,
    "a.json": as_lines,
    "list.json": lambda rows: json.dumps(rows, indent=2, ensure_ascii=False).encode(),
    "flat.json": lambda rows: b"\xef\xbb\xbf " + json.dumps(rows).encode() + b"\n",
    "a.jsonl.gz": lambda rows: in_members(gzip.compress, as_lines(rows)),
    "a.jsonl.zst": lambda rows: in_members(zstandard.compress, as_lines(rows)),
    "a.json.gz": lambda rows: gzip.compress(as_lines(rows)),
    "list.json.zst": lambda rows: zstandard.compress(json.dumps(rows).encode()),
    "a.csv": as_csv,
    "semicolons.csv": lambda rows: as_csv(rows, delimiter=";"),
    "crlf.csv": lambda rows: b"\xef\xbb\xbf" + as_csv(rows, lineterminator="\r\n"),
    "a.tsv": lambda rows: as_csv(rows, delimiter="\t"),
    "a.csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "a.parquet": as_parquet,
    "a.arrow": as_arrow,
    "file.arrow": lambda rows: as_arrow(rows, pa.ipc.new_file),
}

texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=40)
rows_of_texts = st.lists(
    st.fixed_dictionaries({"text": texts, "id": st.text("ab", min_size=1)}), min_size=1, max_size=40
)


@pytest.mark.parametrize("name", FORMS)
@settings(deadline=None, max_examples=40)
@given(rows=rows_of_texts, chunk=st.integers(1, 400), unit=st.integers(1, 1000))
def test_every_record_is_read_once_and_in_order_whatever_the_size_of_chunks_and_units(
    name: str, rows: Rows, chunk: int, unit: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_BYTES", chunk)
        patch.setattr(units, "UNIT_BYTES", unit)
        path = Path(folder) / name
        path.write_bytes(FORMS[name](rows))
        assert values(path) == rows


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.csv", "list.json", "a.parquet"])
@given(order=st.lists(st.integers(0, 12), max_size=20))
@settings(deadline=None, max_examples=20)
def test_a_chunk_is_the_same_whatever_was_read_before_it(name: str, order: list[int]) -> None:
    rows = [{"text": sentence(i), "id": str(i)} for i in range(60)]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_BYTES", 300)
        # row groups of several chunks
        patch.setattr(read_tables, "SPLIT_CHUNKS", 1)
        path = Path(folder) / name
        path.write_bytes(FORMS[name](rows))
        [unit] = units_of(list_files(TextSource(kind="text", path=str(path))), 0)
        found = [list(read_records(c)) for c, _ in zip(unit.chunks(), range(30), strict=False)]
        in_turn = [chunk for chunk, _ in zip(unit.chunks(), range(30), strict=False)]
        assert sum(found, []) == read(path)
        for i in order:
            if i < len(in_turn):
                assert list(read_records(in_turn[i])) == found[i]
                assert count_records(in_turn[i]) == len(found[i])


def test_an_open_file_tells_its_end_by_a_chunk_without_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 100)
    path = tmp_path / "a.jsonl.gz"
    # stretches of blank lines alone are no end
    path.write_bytes(gzip.compress(b"\n" * 1000 + b'{"a": 1}\n' + b" \n" * 999 + b'{"a": 2}\n\n'))
    [unit] = units_of(list_files(TextSource(kind="text", path=str(path))), 0)
    found = [list(read_records(c)) for c, _ in zip(unit.chunks(), range(5), strict=False)]
    assert [len(records) for records in found] == [1, 1, 0, 0, 0]
    files = list_files(TextSource(kind="text", path=str(path)))
    places = [place_of(files, r.file, r.offset) for records in found for r in records]
    assert places == [f"{path}:1001", f"{path}:2001"]
    assert unit.is_open_ended


def test_places_are_what_an_editor_shows(tmp_path: Path) -> None:
    rows = [{"text": f"line\n{i}"} for i in range(5)]
    for name, told in [
        ("a.jsonl", ":4"),
        ("a.jsonl.zst", ":4"),
        ("a.csv", ", row 4"),
        ("a.parquet", ", row 4"),
        ("a.arrow", ", row 4"),
        ("list.json", ", row 4"),
    ]:
        path = tmp_path / name
        path.write_bytes(FORMS[name](rows))
        files = list_files(TextSource(kind="text", path=str(path)))
        record = read(path)[3]
        assert place_of(files, record.file, record.offset) == f"{path}{told}"


def test_blank_lines_other_ends_of_line_and_marks_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"t": 1}\r\n\r\n \n{"t": 2}\r\n{"t": 3}')
    assert values(path) == [{"t": 1}, {"t": 2}, {"t": 3}]
    files = list_files(TextSource(kind="text", path=str(path)))
    [chunk] = units_of(files, 0)[0].chunks()
    assert [place_of(files, 0, offset)[-2:] for offset, _ in lines_of(chunk)] == [":1", ":4", ":5"]
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "mark.txt").write_bytes(b"\xef\xbb\xbfhello")
    (tmp_path / "packed.txt.gz").write_bytes(gzip.compress(b"packed"))
    assert [r.value for r in read(tmp_path)][3:] == ["hello", "packed"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "list.json"])
def test_a_record_longer_than_many_chunks_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(read_lines, "BUFFER_BYTES", 512)
    rows = [{"t": "a" * 10}, {"t": "é\n" * 300_000}, {"t": "b"}]
    (tmp_path / name).write_bytes(FORMS[name](rows))
    assert values(tmp_path / name) == rows


def test_a_line_without_end_is_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_lines, "MAX_LINE_BYTES", 1000)
    for name in ("a.jsonl", "a.jsonl.gz"):
        (tmp_path / name).write_bytes(FORMS[name]([{"t": "x" * 2000}] * 3))
        with pytest.raises(DataError, match=r"a line of more than 0 MiB; write one object"):
            read(tmp_path / name)


@given(text=st.text(" ab\n", max_size=300), piece=st.integers(1, 50))
@settings(deadline=None)
def test_the_pieces_of_a_long_file_are_the_whole(text: str, piece: int) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_BYTES", piece)
        path = Path(folder) / "a.txt"
        path.write_text(text)
        found = read(path)
        assert "".join(str(record.value) for record in found) == text
        [whole] = read(path, cuts_texts=False)
        assert whole.value == text
        at = 0
        for record in found:
            if record.value:
                assert record.offset == at
            at += len(str(record.value))


BAD_LINES = [
    (b'{"text": "cut off', "not JSON ("),
    (b'["a"]', "a JSON list, not an object; write one object"),
    (b"[", "JSON spread over several lines"),
    (b"7", "a JSON number, not an object"),
    (b"null", "a JSON null, not an object"),
    (b'{"text": "\xff"}', "not UTF-8 (byte 0xff)"),
    (b'{"text": "\\ud800"}', "not JSON ("),
]


@pytest.mark.parametrize(("line", "told"), BAD_LINES)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_bad_line_is_told_with_its_place_and_the_rest_is_read(
    tmp_path: Path, name: str, line: bytes, told: str
) -> None:
    path = tmp_path / name
    data = b'{"t": 1}\n\n' + line + b'\n{"t": 2}\n'
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    good, bad, last = read(path)
    assert (good.value, last.value) == ({"t": 1}, {"t": 2})
    assert told in str(bad.problem)
    files = list_files(TextSource(kind="text", path=str(path)))
    assert place_of(files, bad.file, bad.offset) == f"{path}:3"


def test_a_text_that_is_not_utf8_is_named_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"one\ntwo\n\xe9t\xe9 noir\n")
    (tmp_path / "a.txt").write_bytes(b"fine")
    files = list_files(TextSource(kind="text", path=str(tmp_path)))
    good, bad = read(tmp_path)
    assert bad.problem == "not UTF-8 (byte 0xe9)"
    assert place_of(files, bad.file, bad.offset) == f"{tmp_path / 'b.txt'}:3"
    assert place_of(files, good.file, good.offset) == str(tmp_path / "a.txt")


def test_bad_rows_of_csv_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\n1,"a\nb"\n2\n\n3,\xe9t\xe9\n4,"x"y\n5,"say ""hi"""\n6,"open\n')
    assert [(r.offset, r.value or r.problem) for r in read(path)] == [
        (0, {"id": "1", "text": "a\nb"}),
        (1, "1 fields, and the header has 2"),
        (2, "not UTF-8 (byte 0xe9)"),
        (3, "not CSV (',' expected after '\"')"),
        (4, {"id": "5", "text": 'say "hi"'}),
        (5, "not CSV (unexpected end of data)"),
    ]
    path.write_text("id,id\n1,2\n")
    with pytest.raises(DataError, match=r"a\.csv: the first row must name the columns: the column"):
        read(path)
    path.write_text("\n\n")
    assert read(path) == []


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'[{"a": 1}, {"a": 2}', "it ends too early, behind its first 2"),
        (b'[{"a": 1}, {"a" 2}]', "behind its first 1"),
        (b'[{"a": 1} {"a": 2}]', "'{' in place of a comma"),
        (b'[{"a": 1}] [2]', "something behind the list"),
        (b"[", "it ends too early, behind its first 0"),
        (b'["\xff"]', r"not UTF-8 \(byte 0xff\)"),
    ],
)
def test_a_broken_list_is_an_error_however_often_it_is_read(
    tmp_path: Path, data: bytes, told: str
) -> None:
    (tmp_path / "a.json").write_bytes(data)
    for _ in range(2):
        with pytest.raises(DataError, match=told):
            read(tmp_path / "a.json")


def test_values_of_a_list_that_are_no_objects_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'[{"a": 1}, 12, "x", {"b": "\\ud800"}, []]')
    problems = [record.problem for record in read(tmp_path / "a.json")]
    assert problems[:3] == [None, "a JSON number, not an object", "a JSON string, not an object"]
    assert all(problems[3:])


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.txt.gz", "a.txt.zst"])
def test_a_stream_that_is_cut_off_or_damaged_is_an_error_however_often_it_is_read(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    data = as_lines([{"t": sentence(i)} for i in range(2000)])
    whole = gzip.compress(data) if name.endswith("gz") else zstandard.compress(data)
    for broken in (whole[:-3], whole[: len(whole) // 2], b"no stream at all", whole + b"garbage"):
        path.write_bytes(broken)
        for _ in range(2):
            with pytest.raises(DataError, match=rf"{name}: a broken (gz|zst) stream \(.+fetch or"):
                read(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if name.endswith("gz") else whole[:-1])
    with pytest.raises(DataError, match="broken"):
        read(path)
    path.write_bytes(b"")
    assert [record.value for record in read(path)] in ([], [""])


def test_zeros_and_frames_without_data_between_members_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n') + b"\0" * 512 + gzip.compress(b'{"a": 2}\n'))
    assert values(path) == [{"a": 1}, {"a": 2}]
    path = tmp_path / "a.jsonl.zst"
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"meta"
    path.write_bytes(skippable + zstandard.compress(b'{"a": 1}\n') + skippable)
    assert values(path) == [{"a": 1}]


def test_a_packed_text_that_is_too_long_for_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusterlm.data.formats.read_texts.MAX_UNPACKED_BYTES", 1000)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"x" * 5000))
    with pytest.raises(DataError, match=r"a\.txt\.gz: more than 0 MiB of text.+unpack it"):
        read(tmp_path / "a.txt.gz")


GIB = 1 << 30


@pytest.fixture(scope="module")
def zeros() -> bytes:
    """1 GiB of zeros, packed by zstd to some 100 kB."""
    packer = zstandard.ZstdCompressor().compressobj()
    return b"".join(packer.compress(bytes(1 << 24)) for _ in range(GIB >> 24)) + packer.flush()


def peak_of(path: Path, told: str) -> int:
    """Bytes that Python holds at most while the file is found to be too much."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=told):
            read(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.csv.zst", "a.txt.zst"])
def test_a_small_file_that_unpacks_to_a_huge_line_is_refused_within_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zeros: bytes, name: str
) -> None:
    monkeypatch.setattr("clusterlm.data.formats.read_texts.MAX_UNPACKED_BYTES", 100 << 20)
    assert len(zeros) < 200_000
    (tmp_path / name).write_bytes(zeros)
    peak = peak_of(tmp_path / name, rf"{name}: (a line|more than 100 MiB of text)")
    assert peak < (110 << 20 if name == "a.txt.zst" else 200 << 20)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_packed_blocks_stay_small_however_much_they_unpack_to(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / ("a.txt.gz" if pack is gzip.compress else "a.txt.zst")
    path.write_bytes(pack(bytes(64 << 20)) + b"".join(pack(b"x") for _ in range(1000)))
    [file] = list_files(TextSource(kind="text", path=str(path)))
    unpacked = Unpacked(file)
    sizes = [len(block) for block in unpacked]
    assert max(sizes) <= 2 * BLOCK_BYTES
    assert (sum(sizes), unpacked.num_read) == ((64 << 20) + 1000, path.stat().st_size)
    # neither do many small members make many small blocks
    assert len(sizes) <= 65


@settings(deadline=None, max_examples=60)
@given(
    parts=st.lists(st.binary(max_size=300), max_size=6),
    repeats=st.integers(1, 3000),
    level=st.sampled_from([-5, 1, 19]),
    has_checksum=st.booleans(),
    has_size=st.booleans(),
    cut=st.integers(1, 200),
)
def test_zstd_is_unpacked_whole_or_told_to_be_cut_off(
    parts: list[bytes], repeats: int, level: int, has_checksum: bool, has_size: bool, cut: int
) -> None:
    packer = zstandard.ZstdCompressor(
        level=level, write_checksum=has_checksum, write_content_size=has_size
    )
    frames = [packer.compress(part * repeats) for part in parts]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.txt.zst"
        path.write_bytes(b"".join(frames))
        [file] = list_files(TextSource(kind="text", path=str(path)))
        assert b"".join(Unpacked(file)) == b"".join(part * repeats for part in parts)
        if frames and cut < len(frames[-1]):
            path.write_bytes(b"".join(frames)[:-cut])
            with pytest.raises(DataError, match="broken zst stream"):
                list(Unpacked(file))


def test_a_row_of_csv_and_a_value_of_a_list_end_somewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_lines, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr("clusterlm.data.formats.packed.BLOCK_BYTES", 16)
    monkeypatch.setattr(read_rows, "MAX_VALUE_CHARS", 100)
    path = tmp_path / "a.csv"
    # one row of short fields, each with the end of a line in it
    path.write_text("\n" * 300 + "id,text\n" + '"a\n",' * 100 + '"a"\n1,fine\n')
    found = read(path)
    assert "a row of more than 0 MiB" in str(found[0].problem)
    assert found[-1].value == {"id": "1", "text": "fine"}
    path.write_text("id,text\n1," + "x" * 200 + "\n")
    with pytest.raises(DataError, match=r"a\.csv: a line of more than"):
        read(path)
    (tmp_path / "a.json").write_text('[{"a": 1}, {"a": "' + "x" * 200 + '"}]')
    with pytest.raises(DataError, match="a value of more than .+ behind its first 1"):
        read(tmp_path / "a.json")


def test_tables_give_nested_values_and_name_rows_that_are_not_utf8(tmp_path: Path) -> None:
    turns = [[{"role": "user", "content": str(i)}] for i in range(20)]
    pq.write_table(pa.table({"messages": turns}), tmp_path / "a.parquet", row_group_size=6)
    assert values(tmp_path / "a.parquet") == [{"messages": turn} for turn in turns]
    column = pa.array([b"good", b"\xff", b"fine"]).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "b.parquet")
    good, bad, fine = read(tmp_path / "b.parquet")
    assert (good.value, fine.value) == ({"text": "good"}, {"text": "fine"})
    assert (bad.offset, bad.problem) == (1, "not UTF-8 (byte 0xff)")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for data in (b"no table at all", FORMS[name]([{"text": sentence(i)} for i in range(50)])[:-40]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"{name}: no readable {name[2:]} file \("):
            read(path)


def test_a_large_row_group_is_several_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1000)
    rows = [{"text": sentence(i)} for i in range(1000)]
    for name in ("a.parquet", "a.arrow"):
        path = tmp_path / name
        if name == "a.parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_bytes(as_arrow(rows))
        files = list_files(TextSource(kind="text", path=str(path)))
        found = list(units_of(files, 0)[0].chunks())
        assert len(found) > 12
        assert sum(chunk.num_bytes for chunk in found) == path.stat().st_size
        assert [(c.start, c.end) for c in found[1:]] == [
            (c.end, n.end) for c, n in zip(found, found[1:], strict=False)
        ]
        backwards = [[r.value for r in read_records(chunk)] for chunk in reversed(found)]
        assert sum(reversed(backwards), []) == rows


def test_reading_a_packed_file_tells_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 50_000)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(as_lines([{"text": sentence(i)} for i in range(20_000)])))
    [unit] = units_of(list_files(TextSource(kind="text", path=str(path))), 0)
    taken = []
    for chunk in unit.chunks():
        is_end = not list(read_records(chunk))
        taken.append(bytes_taken(chunk))
        if is_end:
            break
    assert sum(taken) == path.stat().st_size
    assert len(taken) > 20
    assert isinstance(chunk, Chunk)


def test_a_quote_left_open_does_not_take_the_rest_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_rows, "MAX_VALUE_CHARS", 100)
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,"open\n' + "2,fine\n" * 50)
    found = read(path)
    assert "field larger than field limit" in str(found[0].problem)
    assert found[-1].value == {"id": "2", "text": "fine"}
