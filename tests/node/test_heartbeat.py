from __future__ import annotations

import time
from pathlib import Path

import pytest

from clusterlm.node import heartbeat
from clusterlm.node.files import read_json
from clusterlm.node.heartbeat import BeatWatch, BeatWriter
from clusterlm.node.records import NodeBeat


def beat(node_rank: int, number: int, at: float = 0.0) -> NodeBeat:
    return NodeBeat(node_rank=node_rank, host="n", pid=1, beat=number, time=at, state="running")


def test_silence_is_counted_from_the_last_change_by_the_readers_clock() -> None:
    watch = BeatWatch([0, 1], now=100.0)
    assert watch.look([beat(0, 1)], now=103.0) == {0: 0.0, 1: 3.0}
    assert watch.look([beat(0, 1), beat(1, 5)], now=108.0) == {0: 5.0, 1: 0.0}
    assert watch.look([beat(0, 2), beat(1, 5)], now=110.0) == {0: 0.0, 1: 2.0}


def test_the_clock_of_a_node_does_not_matter() -> None:
    watch = BeatWatch([0], now=100.0)
    watch.look([beat(0, 1, at=9e9)], now=101.0)
    assert watch.look([beat(0, 1, at=0.0)], now=131.0) == {0: 30.0}


def test_an_agent_that_began_anew_is_alive_though_its_beat_is_lower() -> None:
    watch = BeatWatch([0], now=0.0)
    watch.look([beat(0, 50)], now=1.0)
    assert watch.look([beat(0, 1)], now=9.0) == {0: 0.0}


def test_a_file_that_vanishes_is_silence() -> None:
    watch = BeatWatch([0], now=0.0)
    watch.look([beat(0, 1)], now=1.0)
    assert watch.look([], now=31.0) == {0: 30.0}


def test_beats_count_up_and_a_new_state_is_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_EVERY_S", 0.05)
    writer = BeatWriter(tmp_path / "node0.json", node_rank=0, host="n")
    writer.start()
    time.sleep(0.5)
    writer.mark("stopping")
    time.sleep(0.2)
    seen = NodeBeat.read(tmp_path / "node0.json")
    assert seen is not None
    assert seen.state == "stopping"
    assert seen.beat > 3
    writer.finish(7)
    last = read_json(tmp_path / "node0.json")
    assert last is not None
    assert (last["state"], last["exit_code"]) == ("exited", 7)


def test_a_beat_that_cannot_be_written_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = BeatWriter(tmp_path / "absent" / "node0.json", node_rank=0, host="n")
    writer.start()
    writer.finish(0)
    assert "cannot write node0.json" in capsys.readouterr().out


def test_a_file_system_that_hangs_does_not_hold_the_agents_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "write_json", lambda *_: time.sleep(5))
    monkeypatch.setattr(heartbeat, "LAST_BEAT_WAIT_S", 0.2)
    writer = BeatWriter(tmp_path / "node0.json", node_rank=0, host="n")
    writer.start()
    began = time.monotonic()
    writer.finish(0)
    assert time.monotonic() - began < 10
