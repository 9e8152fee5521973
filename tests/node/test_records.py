from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.node.files import write_json
from clusterlm.node.records import (
    ExitRecord,
    NodeBeat,
    Progress,
    RankStart,
    first_failure,
    read_beats,
    read_exits,
)


def ended(rank: int, at: float, **fields: Any) -> ExitRecord:
    values = {"local_rank": 0, "node_rank": 0, "host": "n", "pid": 1, "started": 0.0}
    return ExitRecord(rank=rank, time=at, **{"code": 0, "signal": None, **values, **fields})


SAMPLES = [
    ended(3, 5.0, code=None, signal="SIGKILL", error="x", ended_by="sibling"),
    NodeBeat(node_rank=1, host="n1", pid=2, beat=3, time=4.0, state="running"),
    RankStart(rank=1, local_rank=1, node_rank=0, host="n", pid=2, child_pid=3, time=4.0),
    Progress(phase="train", step=3, loss=2.5),
]


@pytest.mark.parametrize("record", SAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_was_written(record: Any, tmp_path: Path) -> None:
    write_json(tmp_path / "r.json", {**record.to_dict(), "of_a_newer_version": 1})
    assert type(record).read(tmp_path / "r.json") == record


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"rank": 1}', "\x00\xff", "null"])
def test_a_broken_file_is_left_out(text: str, tmp_path: Path) -> None:
    (tmp_path / "exits").mkdir()
    (tmp_path / "exits" / "rank0.json").write_text(text)
    write_json(tmp_path / "exits" / "rank1.json", ended(1, 1.0).to_dict())
    assert [record.rank for record in read_exits(tmp_path)] == [1]


def test_nothing_written_yet_is_an_empty_list(tmp_path: Path) -> None:
    assert read_exits(tmp_path) == []
    assert read_beats(tmp_path) == []


def test_ranks_come_in_order_of_their_number(tmp_path: Path) -> None:
    (tmp_path / "exits").mkdir()
    for rank in (10, 9, 2):
        write_json(tmp_path / "exits" / f"rank{rank}.json", ended(rank, 1.0).to_dict())
    assert [record.rank for record in read_exits(tmp_path)] == [2, 9, 10]


def test_the_earliest_that_failed_by_itself_explains_the_rest() -> None:
    exits = [
        ended(0, 10.3, code=1, error="Connection reset by peer"),
        ended(1, 10.2, code=None, signal="SIGKILL"),
        ended(2, 10.1, code=None, signal="SIGKILL", ended_by="sibling"),
        ended(3, 9.0, code=85),
        ended(4, 8.0, code=0),
    ]
    assert first_failure(exits).rank == 1  # type: ignore[union-attr]


def test_a_rank_that_we_ended_explains_only_when_nobody_else_failed() -> None:
    killed = ended(2, 1.0, code=None, signal="SIGKILL", ended_by="launcher")
    assert first_failure([killed]) == killed
    assert first_failure([killed, ended(1, 9.0, code=1)]).rank == 1  # type: ignore[union-attr]


@given(st.lists(st.sampled_from([0, 85])))
def test_no_failure_among_those_that_ended_well(codes: list[int]) -> None:
    assert first_failure(ended(i, float(i), code=code) for i, code in enumerate(codes)) is None


@given(st.data())
def test_a_failure_of_its_own_always_beats_a_tear_down(data: st.DataObject) -> None:
    times = st.floats(0, 1e9)
    own = [ended(i, data.draw(times), code=1) for i in range(data.draw(st.integers(1, 4)))]
    torn = [dataclasses.replace(r, rank=r.rank + 9, ended_by="sibling", time=0.0) for r in own]
    found = first_failure(data.draw(st.permutations(own + torn)))
    assert found is not None
    assert found.time == min(record.time for record in own)
