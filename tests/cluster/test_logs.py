from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from clusterlm.cluster.follow import Follower, follow
from clusterlm.cluster.logs import Wanted, _fair_shares, newest_lines
from clusterlm.cluster.scheduler import SchedulerView
from clusterlm.cluster.status import StatusReader
from clusterlm.node.files import write_json
from clusterlm.paths import AttemptPaths
from clusterlm.supervise.causes import State
from tests.cluster.fake_host import FakeHost
from tests.cluster.run_folders import RunFolder


def say(attempt: AttemptPaths, name: str, text: str) -> None:
    with (attempt.logs / f"{name}.log").open("a") as handle:
        handle.write(text)


def host_of(attempt: AttemptPaths, name: str, host: str) -> None:
    write_json(attempt.heartbeats / f"{name}.json", {"host": host})


def reader(runs_dir: Path, host: FakeHost | None = None) -> StatusReader:
    return StatusReader(runs_dir, SchedulerView(runs_dir, host or FakeHost()))


def test_lines_say_whose_they_are(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    attempt = run.training()
    for name in ("rank3", "node1", "node0", "step"):
        say(attempt, name, f"hello from {name}\n")
    host_of(attempt, "rank3", "node2")
    host_of(attempt, "node1", "node2")
    run.paths.submitit.mkdir()
    (run.paths.submitit / "11_0_log.out").write_text("batch here\n")
    lines, _ = newest_lines(run.paths, Wanted(), 50)
    assert sorted(lines) == [
        "[batch] batch here",
        "[node 0] hello from node0",
        "[node2] hello from node1",
        "[rank 3 node2] hello from rank3",
        "[step] hello from step",
    ]


def test_all_attempts_are_shown_in_order_and_filters_choose(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    prepare = run.attempt(phase="preprocess")
    say(prepare, "rank0", "tokenizing\n")
    time.sleep(0.01)
    first = run.training()
    say(first, "rank0", "TypeError: worse\nfirst\n")
    time.sleep(0.01)
    second = run.attempt(2)
    say(second, "rank0", "second\nValueError: bad\n")
    say(second, "rank1", "other\n")

    def lines(count: int = 50, **wanted: object) -> list[str]:
        return newest_lines(run.paths, Wanted(**wanted), count)[0]  # type: ignore[arg-type]

    prepare_mark, first_mark, second_mark = (
        "--- preprocess attempt 1 ---",
        "--- train attempt 1 ---",
        "--- train attempt 2 ---",
    )
    shown = lines()
    assert [shown[0], shown[2], shown[5]] == [prepare_mark, first_mark, second_mark]
    assert shown[1] == "[rank 0] tokenizing"
    assert shown[3:5] == ["[rank 0] TypeError: worse", "[rank 0] first"]
    assert len(shown[6:]) == 3
    assert lines(4) == [first_mark, "[rank 0] first", *shown[5:]]
    assert lines(3) == shown[5:]
    assert lines(0) == []
    assert lines(attempt=1) == shown[:5]
    assert lines(attempt=2) == shown[6:]
    assert lines(phase="preprocess") == ["[rank 0] tokenizing"]
    assert lines(rank=1) == [second_mark, "[rank 1] other"]
    worse, bad = "[rank 0] TypeError: worse", "[rank 0] ValueError: bad"
    assert lines(errors=True) == [first_mark, worse, second_mark, bad]
    assert lines(1, errors=True) == [second_mark, bad]


def test_every_file_has_an_offset_to_follow_from_also_when_no_line_is_left_for_it(
    tmp_path: Path,
) -> None:
    run = RunFolder(tmp_path)
    first = run.attempt(1)
    say(first, "rank0", "TypeError: worse\n")
    time.sleep(0.01)
    say(run.attempt(2), "rank0", "ValueError: bad\n")
    for errors in (False, True):
        lines, offsets = newest_lines(run.paths, Wanted(errors=errors), 1)
        assert lines == ["--- train attempt 2 ---", "[rank 0] ValueError: bad"]
        assert offsets[first.rank_log(0)] == len("TypeError: worse\n")


def test_every_file_gets_a_fair_share_of_the_lines() -> None:
    assert _fair_shares([2, 30, 90], 50) == [2, 24, 24]
    assert _fair_shares([5, 5, 5], 2) == [1, 1, 0]
    assert _fair_shares([0, 1], 1) == [0, 1]
    assert _fair_shares([1], 50) == [1]
    assert _fair_shares([], 50) == []


def followed(run: RunFolder, *, tail: int = 50) -> tuple[list[str], Callable[[], None]]:
    said: list[str] = []
    follower = Follower(run.paths, Wanted(), said.append)
    follower.begin(tail)
    now = 0.0

    def poll() -> None:
        nonlocal now
        now += 0.3
        while follower.poll(now):
            pass

    return said, poll


def test_following_goes_on_across_attempts_and_phases(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.submitted("preprocess", "10")
    prepare = run.attempt(phase="preprocess")
    say(prepare, "rank0", "old 1\nold 2\n")
    said, poll = followed(run, tail=1)
    assert said == ["[rank 0] old 2"]
    say(prepare, "rank0", "tokenizing\nhal")
    poll()
    assert said[1:] == ["[rank 0] tokenizing"]
    say(prepare, "rank0", "f\n")
    run.event("phase_done", phase="preprocess")
    write_json(prepare.exit, {})
    first = run.attempt(1)
    say(first, "rank0", "step 1\n")
    poll()
    assert said[2:] == [
        "[rank 0] half",
        "--- preprocess is done ---",
        "--- train attempt 1 on n1,n2 ---",
        "[rank 0] step 1",
    ]


def test_a_failed_rank_is_marked_at_once_and_only_once(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    attempt = run.training()
    said, poll = followed(run)
    fields = run.rank_exit(attempt, 1, error="ValueError: \x1b[31mbad")
    poll()
    mark = "--- rank 1 on n2 failed (exit 3): ValueError: bad ---"
    assert said == [mark]
    shown = {k: fields[k] for k in ("rank", "host", "code", "signal", "error")}
    run.event("rank_failed", phase="train", attempt=1, **shown)
    run.event("node_lost", phase="train", attempt=1, host="n1", silent_s=31)
    run.event("attempt_ended", phase="train", attempt=1, cause="USER_ERROR", action="retry")
    poll()
    assert said[1:] == [
        "--- n1 lost: no heartbeat for 31 s ---",
        "--- train attempt 1 ended: the program has an error that a restart does not change; "
        "trying again ---",
    ]


def test_a_resume_that_prepares_the_data_again_is_followed_too(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    old = run.attempt(1)
    write_json(old.exit, {})
    time.sleep(0.01)
    again = run.attempt(2, "preprocess")
    said, poll = followed(run)
    say(again, "rank0", "tokenizing\n")
    poll()
    assert said == ["[rank 0] tokenizing"]


def test_follow_ends_with_the_run_and_misses_no_last_line(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    attempt = run.training()
    say(attempt, "rank0", "one\n")
    host, said = FakeHost(), list[str]()

    def go_on() -> None:
        time.sleep(0.6)
        say(attempt, "rank0", "last words without a newline")
        run.ended()

    thread = threading.Thread(target=go_on)
    thread.start()
    end = follow(run.paths, Wanted(), 50, say=said.append, reader=reader(tmp_path, host))
    thread.join()
    assert end.state is State.DONE
    assert said == ["[rank 0] one", "--- DONE ---", "[rank 0] last words without a newline"]
    assert host.calls == []


def test_follow_of_one_phase_ends_with_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    prepare = run.attempt(phase="preprocess")
    run.event("phase_done", phase="preprocess")
    say(prepare, "rank0", "prepared\n")
    run.training()
    said: list[str] = []
    wanted = Wanted(phase="preprocess")
    follow(run.paths, wanted, 50, say=said.append, reader=reader(tmp_path), sleep=lambda s: None)
    assert said == ["[rank 0] prepared"]
