from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from clusterlm.node.files import (
    append_json,
    create_json,
    has_appeared,
    read_json,
    read_jsonl,
    write_json,
)


def test_one_of_many_writers_creates_and_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "stop.json"
    won: list[int] = []

    def create(number: int) -> None:
        if create_json(path, {"by": number}):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert read_json(path) == {"by": won[0]}
    assert list(tmp_path.iterdir()) == [path]


def test_creating_works_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    assert create_json(tmp_path / "a.json", {"by": 1})
    assert not create_json(tmp_path / "a.json", {"by": 2})
    assert read_json(tmp_path / "a.json") == {"by": 1}
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def test_a_file_is_private_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_appearing_is_seen_and_an_absent_folder_is_no_error(tmp_path: Path) -> None:
    assert not has_appeared(tmp_path / "absent" / "stop.json")
    assert not has_appeared(tmp_path / "stop.json")
    (tmp_path / "stop.json").touch()
    assert has_appeared(tmp_path / "stop.json")


def test_lines_are_read_on_from_an_offset_and_half_lines_wait(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_json(path, {"n": 1})
    with path.open("a") as handle:
        handle.write('not json\n{"n": 2}\n{"n":')
    rows, offset = read_jsonl(path)
    assert [row["n"] for row in rows] == [1, 2]
    with path.open("a") as handle:
        handle.write(" 3}\n")
    assert read_jsonl(path, offset)[0] == [{"n": 3}]
