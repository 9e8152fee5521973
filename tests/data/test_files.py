from __future__ import annotations

import os
from pathlib import Path

import pytest

from clusterlm.data.files import list_files, regex_of
from clusterlm.errors import DataError
from clusterlm.spec.data import ChatSource, TextSource


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
