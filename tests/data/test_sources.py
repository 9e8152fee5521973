from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterlm.data import long_text, sources
from clusterlm.data.files import list_files
from clusterlm.data.sources import Record, chunks_of, read_records
from clusterlm.errors import DataError
from clusterlm.spec.data import TextSource
from tests.data.corpus import chat_source, data_of, prepare, sentence, text_source, write_rows


def _records(path: Path) -> list[Record]:
    files = list_files(TextSource(kind="text", path=str(path)))
    return [record for chunk in chunks_of(0, files) for record in read_records(chunk)]


@settings(deadline=None)
@given(
    rows=st.lists(st.text(max_size=30), max_size=30),
    chunk=st.integers(1, 100),
    ends_with_newline=st.booleans(),
)
def test_every_line_is_read_once_whatever_the_size_of_the_chunks(
    rows: list[str], chunk: int, ends_with_newline: bool
) -> None:
    lines = [json.dumps({"text": row}) for row in rows]
    text = "\n".join(lines) + "\n" * ends_with_newline
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "CHUNK_BYTES", chunk)
        path = Path(folder) / "a.jsonl"
        path.write_text(text)
        found = _records(path)
        assert [record.value for record in found] == [{"text": row} for row in rows]
        assert [str(r.place) for r in found] == [f"{path}:{i + 1}" for i in range(len(rows))]


def test_a_long_file_is_read_in_pieces_that_are_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sources, long_text):
        monkeypatch.setattr(module, "PIECE_BYTES", 200)
    text = " ".join(sentence(i) for i in range(100))
    (tmp_path / "a.txt").write_text(text)
    found = _records(tmp_path / "a.txt")
    assert len(found) > 20
    assert "".join(str(record.value) for record in found) == text


def test_a_mark_of_byte_order_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "x"}\r\n\r\n{"text": "y"}\r\n')
    assert [r.value for r in _records(tmp_path)] == ["hello", {"text": "x"}, {"text": "y"}]


def test_parquet_is_read_row_by_row(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [sentence(i) for i in range(50)]
    pyarrow.parquet.write_table(pyarrow.table({"text": rows}), tmp_path / "a.parquet")
    found = _records(tmp_path / "a.parquet")
    assert [record.value for record in found] == [{"text": row} for row in rows]
    assert str(found[3].place) == f"{tmp_path / 'a.parquet'}:4"


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(DataError, match=r"a\.parquet: no readable parquet file"):
        _records(tmp_path / "a.parquet")


GOOD = '{"text": "a good line of text"}'
BAD_LINES = [
    ('{"text": "cut off', r"a\.jsonl:3: not JSON \("),
    ('["a"]', r"a\.jsonl:3: a JSON list, not an object"),
    ("[", r"a\.jsonl:3: JSON spread over several lines"),
    ("7", r"a\.jsonl:3: a JSON number, not an object"),
    ('{"body": "x"}', r"a\.jsonl:3: field 'text' is missing \(there: body\)"),
    ('{"text": 7}', r"a\.jsonl:3: field 'text' is no string but int"),
    ('{"text": null}', r"a\.jsonl:3: field 'text' is no string but NoneType"),
    ('{"text": "\udcff"}', r"a\.jsonl:3: not UTF-8 \(byte 0xff\)"),
    ('{"text": "\\ud800"}', r"a\.jsonl:3: not JSON"),
]


@pytest.mark.parametrize(("line", "told"), BAD_LINES)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_line_stops_the_run_with_its_place(
    tmp_path: Path, line: str, told: str, workers: int
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes("\n".join([GOOD, "", line, GOOD]).encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=told) as caught:
        prepare(data_of(text_source(path)), workers=workers if "cut off" in line else 1)
    assert "set data.on_bad_record: skip" in str(caught.value)


@pytest.mark.parametrize(("line", "told"), BAD_LINES)
def test_a_bad_line_is_left_out_and_counted_if_so_asked(
    tmp_path: Path, line: str, told: str
) -> None:
    path = tmp_path / "a.jsonl"
    rows = [*(json.dumps({"text": sentence(i)}) for i in range(9)), line, GOOD]
    path.write_bytes("\n".join(rows).encode("utf-8", "surrogateescape"))
    cache = prepare(data_of(text_source(path), on_bad_record="skip"))
    counts = cache.manifest["counts"]
    assert (counts["documents"], counts["kept"], counts["dropped"]) == (11, 10, {"bad_record": 1})
    assert cache.manifest["bad_records"][0].startswith(f"{path}:10: ")


@pytest.mark.parametrize("long", [False, True])
def test_a_text_that_is_not_utf8_is_named_with_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    if long:
        monkeypatch.setattr(sources, "PIECE_BYTES", 100)
    folder = tmp_path / "texts"
    folder.mkdir()
    lines = [sentence(i).encode() for i in range(20)]
    (folder / "good.txt").write_bytes(b"\n".join(lines))
    (folder / "bad.txt").write_bytes(b"\n".join([*lines, b"caf\xe9 noir", *lines]))
    with pytest.raises(DataError, match=r"bad\.txt:21: not UTF-8 \(byte 0xe9\)"):
        prepare(data_of(text_source(folder)))
    cache = prepare(data_of(text_source(folder), on_bad_record="skip"))
    assert cache.manifest["counts"]["kept"] == 1
    assert cache.manifest["counts"]["dropped"] == {"bad_record": 1}


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ("text", "field 'messages' is no list of turns"),
        ([], "field 'messages' is no list of turns"),
        (["hi"], r"messages\[0\] is no object with role and content"),
        ([{"role": "robot", "content": "hi"}], r"messages\[0\]\.role is 'robot'; known roles"),
        ([{"role": "user", "content": None}], r"messages\[0\]\.content is no string"),
    ],
)
def test_a_bad_conversation_is_told_with_its_turn(
    tmp_path: Path, messages: object, told: str
) -> None:
    path = write_rows(tmp_path / "c.jsonl", [{"messages": messages}])
    with pytest.raises(DataError, match=rf"c\.jsonl:1: {told}"):
        prepare(data_of(chat_source(path)))


def test_a_bad_line_behind_the_last_document_wanted_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"text": "{sentence(i)}"}}\n' for i in range(10)) + "broken\n")
    assert prepare(data_of(text_source(path, max_documents=10))).manifest["counts"]["kept"] == 10
    with pytest.raises(DataError, match=r"a\.jsonl:11"):
        prepare(data_of(text_source(path, max_documents=11)))
