"""Plain text of which each line is a document."""

from __future__ import annotations

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterlm.data.files import list_files
from clusterlm.data.formats import chunks
from clusterlm.data.formats.chunks import Record
from clusterlm.data.sources import count_records, place_of, read_records, read_unit, units_of
from clusterlm.errors import DataError
from clusterlm.spec.job import Job
from clusterlm.spec.rules_data import lines_are_of_plain_text
from clusterlm.spec.sources import TextSource
from tests.data.corpus import data_of, prepare, text_source, write_texts

PACKED = {"a.txt": bytes, "a.txt.gz": gzip.compress, "a.txt.zst": zstandard.compress}
LINES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0\ufeff"), max_size=30),
    max_size=30,
)


def read(path: Path) -> list[Record]:
    files = list_files(TextSource(kind="text", path=str(path), documents="line"))
    return [record for unit in units_of(files, 0) for record in read_unit(unit)]


@settings(deadline=None, max_examples=60)
@given(
    lines=LINES,
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["", "\ufeff"]),
    name=st.sampled_from(sorted(PACKED)),
    size=st.integers(1, 80),
)
def test_each_line_that_is_not_blank_is_a_document_whatever_the_chunks(
    lines: list[str], end: str, mark: str, name: str, size: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_BYTES", size)
        path = Path(folder) / name
        path.write_bytes(PACKED[name]((mark + end.join(lines)).encode()))
        wanted = [line for line in lines if line.encode().strip()]
        assert [record.value for record in read(path)] == wanted
        files = list_files(TextSource(kind="text", path=str(path), documents="line"))
        found = [
            (count_records(chunk), len(list(read_records(chunk))))
            for unit in units_of(files, 0)
            if not unit.is_open_ended
            for chunk in unit.chunks()
        ]
        if not mark:
            assert all(counted == number for counted, number in found)


def test_a_line_that_is_no_utf8_is_told_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("first\n\nвторая\n".encode() + b"bro\xffken\nlast")
    records = read(path)
    assert [record.problem for record in records] == [None, None, "not UTF-8 (byte 0xff)", None]
    files = list_files(TextSource(kind="text", path=str(path), documents="line"))
    assert place_of(files, 0, records[2].offset) == f"{path}:4"


def test_lines_are_documents_where_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one line\n\nanother line\na third one\n")
    by_line = prepare(data_of(text_source(path, documents="line", split="[1:]"), block_size=8))
    whole = prepare(data_of(text_source(path), block_size=8))
    assert by_line.manifest["counts"]["documents"] == 3
    assert by_line.manifest["counts"]["kept"] == 2
    assert whole.manifest["counts"]["documents"] == 1


def test_records_in_the_same_folder_stay_records(tmp_path: Path) -> None:
    write_texts(tmp_path / "b.jsonl", 3)
    (tmp_path / "a.txt").write_text("one line\nanother\n")
    values = [record.value for record in read(tmp_path)]
    assert values[:2] == ["one line", "another"]
    assert all(isinstance(value, dict) for value in values[2:])


@pytest.mark.parametrize("name", ["b.jsonl", "b.JSONL.GZ"])
def test_lines_of_files_of_records_alone_are_refused(tmp_path: Path, name: str) -> None:
    path = write_texts(tmp_path / name, 3)
    with pytest.raises(DataError, match=r"holds records, and `documents: line`"):
        read(path)
    # and by `check`, from the name
    data = data_of(text_source(path, documents="line")).model_dump(mode="json")
    job = Job.model_validate({"name": "r", "data": data})
    assert [problem.where for problem in lines_are_of_plain_text(job)] == [
        "data.sources[0].documents"
    ]
