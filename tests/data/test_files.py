from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from clusterlm.data.files import list_files, regex_of
from clusterlm.data.hashes import hash_file
from clusterlm.errors import DataError
from clusterlm.spec.sources import ChatSource, TextSource


def _names(path: str, *exclude: str) -> list[str]:
    source = TextSource(kind="text", path=path, exclude=list(exclude))
    return [file.name for file in list_files(source)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in ("b.txt", "a.txt", "sub/c.py", "sub/deep/d.py", "test/e.py", ".git/f", "g[1].txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def test_a_folder_means_every_visible_file_below_it_in_the_order_of_names(tree: Path) -> None:
    assert _names(str(tree)) == [
        "a.txt",
        "b.txt",
        "g[1].txt",
        "sub/c.py",
        "sub/deep/d.py",
        "test/e.py",
    ]


def test_two_stars_mean_any_number_of_folders_and_one_star_none(tree: Path) -> None:
    assert _names(f"{tree}/**/*.py") == ["sub/c.py", "sub/deep/d.py", "test/e.py"]
    assert _names(f"{tree}/*.txt") == ["a.txt", "b.txt", "g[1].txt"]
    assert _names(f"{tree}/*/*.py") == ["sub/c.py", "test/e.py"]


@pytest.mark.parametrize("glob", ["test", "test/**", "**/test", "**/test/**", "t?st", "[st]est"])
def test_a_folder_that_is_left_out_is_left_out_with_all_below_it(tree: Path, glob: str) -> None:
    assert _names(f"{tree}/**/*.py", glob) == ["sub/c.py", "sub/deep/d.py"]


def test_a_file_whose_name_looks_like_a_glob_is_taken_as_it_is(tree: Path) -> None:
    assert _names(f"{tree}/g[1].txt") == ["g[1].txt"]


def test_a_link_to_a_folder_above_ends(tree: Path) -> None:
    (tree / "sub" / "loop").symlink_to(tree)
    assert len(_names(f"{tree}/**/*.py")) == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_or_device_is_no_file_and_is_never_waited_for(tree: Path) -> None:
    there = _names(str(tree))
    for name in ("p.txt", "p.json", "state.json", "dataset_dict.json"):
        os.mkfifo(tree / name)
    (tree / "null.txt").symlink_to("/dev/null")
    (tree / "sub" / "link.txt").symlink_to(tree / "a.txt")
    assert _names(str(tree)) == sorted([*there, "sub/link.txt"])
    assert _names(f"{tree}/*.txt") == ["a.txt", "b.txt", "g[1].txt"]
    for name in ("p.txt", "p.json", "null.txt"):
        with pytest.raises(DataError, match=rf"{name}: no regular file but a pipe"):
            _names(str(tree / name))
        with pytest.raises(DataError, match=rf"{name}: no regular file"):
            hash_file(tree / name)
    with pytest.raises(DataError, match="no file matches"):
        _names(f"{tree}/p*.txt")


def test_files_of_an_odd_name_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in (b"new\nline.txt", b"\xff.txt"):
        (folder / os.fsdecode(name)).write_text("x")
    assert len(_names(f"{folder}/*.txt")) == 2


def test_the_standard_library_has_a_name() -> None:
    assert "decoder.py" in _names("{stdlib}/json/*.py")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nowhere/x.txt", "does not exist"),
        ("*.nothing", "no file matches *.nothing"),
        ("a.txtt", "a.txtt does not exist"),
    ],
)
def test_what_is_not_there_is_named(tree: Path, path: str, told: str) -> None:
    with pytest.raises(DataError, match="relative to the YAML") as caught:
        _names(f"{tree}/{path}")
    assert told in str(caught.value)


def test_a_folder_without_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file in the folder"):
        _names(str(tmp_path / "empty"))


def test_a_conversation_source_takes_only_files_with_records(tree: Path) -> None:
    (tree / "chat.jsonl").write_text("{}\n")
    source = ChatSource(kind="chat", path=str(tree))
    assert [file.name for file in list_files(source)] == ["chat.jsonl"]
    with pytest.raises(DataError, match=r"a\.txt: a chat or instruct source reads \.jsonl"):
        list_files(ChatSource(kind="chat", path=str(tree / "a.txt")))


def test_a_star_does_not_cross_a_folder() -> None:
    assert regex_of("*.py").fullmatch("a.py")
    assert not regex_of("*.py").fullmatch("sub/a.py")
    assert regex_of("**/*.py").fullmatch("a.py")
    assert regex_of("a+b/[!x].py").fullmatch("a+b/y.py")


def _source(path: Path, **options: Any) -> TextSource:
    return TextSource(kind="text", path=str(path), **options)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.JSONL", ("lines", None, False)),
        ("a.jsonl.gz", ("lines", "gz", True)),
        ("a.json.zst", ("lines", "zst", True)),
        ("a.csv", ("rows", None, True)),
        ("a.tsv.gz", ("rows", "gz", True)),
        ("a.parquet", ("parquet", None, False)),
        ("a.arrow", ("arrow", None, False)),
        ("a.txt.gz", ("text", "gz", False)),
        ("notes.v2.gz", ("text", "gz", False)),
        ("README", ("text", None, False)),
    ],
)
def test_the_end_of_the_name_tells_how_a_file_is_read(
    tmp_path: Path, name: str, told: tuple[str, str | None, bool]
) -> None:
    (tmp_path / name).write_text("{}")
    [file] = list_files(_source(tmp_path / name))
    assert (file.format, file.packing, file.is_sequential) == told


def test_a_json_file_that_holds_a_list_is_told_by_its_first_byte(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(' \n[{"a": 1}]')
    (tmp_path / "b.json").write_text('{"a": [1]}')
    assert [file.format for file in list_files(_source(tmp_path))] == ["rows", "lines"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    rows = datasets.Dataset.from_list([{"text": f"document {i}"} for i in range(30)])
    splits = datasets.DatasetDict({"train": rows, "test": rows.select(range(5))})
    splits.save_to_disk(str(tmp_path / "saved" / "two"), num_shards={"train": 12, "test": 1})
    rows.save_to_disk(str(tmp_path / "saved" / "one"))
    return tmp_path / "saved"


def test_a_saved_dataset_is_read_in_its_own_order_and_by_split(saved: Path) -> None:
    train = list_files(_source(saved / "two"))
    state = json.loads((saved / "two/train/state.json").read_text())
    assert [f.name for f in train] == [f"train/{d['filename']}" for d in state["_data_files"]]
    assert len(train) == 12
    test = list_files(_source(saved / "two", split="test[:3]"))
    assert [file.name for file in test] == ["test/data-00000-of-00001.arrow"]
    assert list_files(_source(saved, subset="two")) == [
        file.__class__(file.path, f"two/{file.name}", file.num_bytes) for file in train
    ]
    assert len(list_files(_source(saved / "one"))) == 1


def test_several_saved_datasets_below_a_folder_are_their_arrow_files(saved: Path) -> None:
    names = [file.name for file in list_files(_source(saved))]
    assert len(names) == 14
    assert all(name.endswith(".arrow") for name in names)


def test_a_split_that_is_not_saved_is_told_with_those_that_are(saved: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'dev'; there are: train, test"):
        list_files(_source(saved / "two", split="dev"))
    with pytest.raises(DataError, match=r"no split 'dev'; there are: none"):
        list_files(_source(saved / "one", split="dev"))
    (saved / "two/test/state.json").unlink()
    with pytest.raises(DataError, match=r"without its state\.json; copy it again"):
        list_files(_source(saved / "two", split="test"))
    (saved / "two/dataset_dict.json").write_text('{"splits": ["a", "b"]}')
    with pytest.raises(DataError, match="say which split; there are: a, b"):
        list_files(_source(saved / "two"))


@pytest.fixture
def downloaded(tmp_path: Path) -> Path:
    folder = tmp_path / "downloaded"
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    for name in (
        *("README.md", "dataset_infos.json", "en/train-00000-of-00002.parquet"),
        *("en/train-00001-of-00002.parquet", "en/test-00000-of-00001.parquet"),
        "ru/train-00000-of-00001.parquet",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    return folder


def test_a_downloaded_dataset_has_splits_and_subsets_by_name(downloaded: Path) -> None:
    assert [file.name for file in list_files(_source(downloaded))] == [
        "en/train-00000-of-00002.parquet",
        "en/train-00001-of-00002.parquet",
        "ru/train-00000-of-00001.parquet",
    ]
    [test] = list_files(_source(downloaded, subset="en", split="test[10%:]"))
    assert test.name == "en/test-00000-of-00001.parquet"
    with pytest.raises(DataError, match="no split 'dev'; there are: train, test"):
        list_files(_source(downloaded, split="dev"))
    with pytest.raises(DataError, match="no folder 'de' in it; there are: en, ru"):
        list_files(_source(downloaded, subset="de"))
    for path in (*(downloaded / "en").iterdir(), downloaded / "ru/train-00000-of-00001.parquet"):
        path.rename(path.with_name(f"{path.parent.name}{path.name[-13:]}"))
    assert len(list_files(_source(downloaded))) == len(list(downloaded.rglob("*.parquet")))


def test_plain_files_have_rows_but_no_splits(tree: Path) -> None:
    assert len(list_files(_source(tree / "*.txt", split="[:10]"))) == 3
    for path in (tree, tree / "*.txt", tree / "a.txt"):
        with pytest.raises(DataError, match=r"these files have no splits; write only the rows"):
            list_files(_source(path, split="train[:10]"))
        with pytest.raises(DataError, match=r"these files have no subsets"):
            list_files(_source(path, subset="en"))


def test_a_hub_dataset_has_no_files_yet() -> None:
    assert list_files(TextSource(kind="text", hub="owner/name")) == []


def test_listing_files_imports_nothing_heavy(saved: Path) -> None:
    code = (
        "import sys; from clusterlm.data.files import list_files;"
        "from clusterlm.spec.sources import TextSource;"
        f"list_files(TextSource(kind='text', path={str(saved / 'two')!r}));"
        "print([m for m in ('numpy', 'pyarrow', 'datasets', 'zstandard') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
