from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from clusterlm.cluster import full_disk
from clusterlm.cluster.scheduler import SchedulerView
from clusterlm.cluster.status import StatusReader
from clusterlm.cluster.why import Explanation, explain
from clusterlm.node.extensions import WAITS
from clusterlm.node.records import read_exits
from clusterlm.node.room import Room
from clusterlm.node.seal import seal
from clusterlm.paths import RunPaths
from clusterlm.supervise.causes import Cause, State
from clusterlm.supervise.judge import judge_attempt
from clusterlm.supervise.views import AttemptView
from tests.cluster.fake_host import NO_DATABASE, UNKNOWN_ID, UNREACHABLE, FakeHost
from tests.cluster.run_folders import RunFolder, squeue_line

TRACEBACK = 'Traceback (most recent call last):\n  File "t.py", line 3\nKeyError: "loss"'
FAILED: dict[str, Any] = {
    "phase": "train",
    "rank": 1,
    "host": "n2",
    "code": 3,
    "signal": None,
    "error": 'KeyError: "loss"',
}


def why(run: RunPaths, **answers: tuple[int | None, str, str]) -> Explanation:
    view = SchedulerView(run.root.parent, FakeHost(**answers))
    (status,) = StatusReader(run.root.parent, view).read([run.name])
    found = explain(run, status)
    json.dumps(found.to_json(), allow_nan=False)
    return found


def failed_twice(runs_dir: Path) -> RunFolder:
    run = RunFolder(runs_dir)
    run.submitted()
    run.started()
    for number in (1, 2):
        attempt = run.attempt(number)
        now = time.time()
        loud = {"error": "RuntimeError: Connection closed by peer", "traceback": "loud"}
        run.rank_exit(attempt, 0, time=now, code=1, **loud)
        run.rank_exit(attempt, 1, time=now - 1, error=FAILED["error"], traceback=TRACEBACK)
        attempt.rank_log(1).write_text("step 1\n")
        run.event("attempt_ended", attempt=number, cause="USER_ERROR", action="retry", **FAILED)
    run.ended("STOPPED", "USER_ERROR", **{k: v for k, v in FAILED.items() if k != "phase"})
    return run


def test_the_first_failure_in_time_is_told_and_not_the_loudest(tmp_path: Path) -> None:
    run = failed_twice(tmp_path)
    found = why(run.paths)
    assert (found.rank, found.host, found.code, found.attempt) == (1, "n2", 3, 2)
    assert found.cause is Cause.USER_ERROR
    assert found.traceback == TRACEBACK
    assert found.same_before == 1
    assert found.log == str(run.paths.attempt("train", 2).rank_log(1))
    text = "\n".join(found.lines())
    assert 'rank 1 on n2 failed (exit 3): KeyError: "loss"' in text
    assert "clusterlm resume run" in text
    assert "before    ended the same way once" in text


def test_a_rank_killed_by_a_signal_names_the_signal_and_shows_its_last_lines(
    tmp_path: Path,
) -> None:
    run = RunFolder(tmp_path)
    attempt = run.training()
    attempt.rank_log(1).write_text("step 7\nallocating \x1b[1mmuch\n")
    run.rank_exit(attempt, 1, code=None, signal="SIGKILL", error="step 7")
    found = why(run.paths)
    assert (found.state, found.cause) == (State.RETRYING, Cause.RANK_KILLED)
    assert found.signal == "SIGKILL"
    assert found.log_tail == ("step 7", "allocating much")
    assert "rank 1 on n2 was ended by SIGKILL; its last line: step 7" in found.words
    assert "no whole checkpoint yet: the next attempt begins anew" in "\n".join(found.lines())


@pytest.mark.parametrize(
    ("struck", "words", "advice"),
    [
        (True, "by SIGKILL, by the kernel for want of memory", "resources.mem"),
        (False, "(not by the kernel for want of memory)", "on n2 sent the signal"),
    ],
)
def test_a_kill_says_whether_it_was_the_kernel_and_where_the_run_goes_on(
    tmp_path: Path, *, struck: bool, words: str, advice: str
) -> None:
    run = RunFolder(tmp_path)
    attempt = run.training()
    whole = run.paths.checkpoints / "checkpoint-30"
    whole.mkdir(parents=True)
    (whole / "weights").write_text("w")
    seal(whole, 30, 1)
    (run.paths.checkpoints / "checkpoint-40").mkdir()
    killed = {"code": None, "signal": "SIGKILL", "error": "step 40", "out_of_memory": struck}
    run.rank_exit(attempt, 1, **killed)
    view = AttemptView(exits=read_exits(attempt.root), expected_ranks=2)
    finding = judge_attempt(view)
    assert finding is not None
    fields = {"cause": finding.cause.name, "evidence": finding.evidence, "rank": 1, "host": "n2"}
    run.event("attempt_ended", phase="train", attempt=1, action="stop", **fields)
    run.ended("STOPPED", **fields)
    found = why(run.paths)
    assert found.cause is (Cause.HOST_MEMORY if struck else Cause.RANK_KILLED)
    assert words in found.words
    assert advice in found.advice
    reached = "step 40 of 300; last whole checkpoint: step 30, a resume goes on there"
    assert f"  reached   {reached}" in found.lines()
    assert found.to_json()["standing"]["checkpoint"] == 30


def test_preprocess_failures_are_explained_also_those_of_another_run(tmp_path: Path) -> None:
    owner = RunFolder(tmp_path, "owner")
    owner.submitted("preprocess", "10")
    owner.started("preprocess", "10")
    attempt = owner.attempt(phase="preprocess")
    error = "DataError: data/x.jsonl line 3: not UTF-8"
    owner.rank_exit(attempt, 0, code=1, error=error, traceback="Traceback ...")
    failed = {**FAILED, "rank": 0, "host": "n1", "code": 1, "error": error, "phase": "preprocess"}
    owner.event("attempt_ended", attempt=1, cause="DATA", action="stop", **failed)
    owner.event("ended", state="STOPPED", cause="DATA", **failed)
    own = why(owner.paths)
    assert (own.cause, own.phase, own.error) == (Cause.DATA, "preprocess", error)
    guest = RunFolder(tmp_path, "guest")
    guest.event("shares", phase="preprocess", job_id="10", cluster="slurm", run="owner")
    guest.submitted("train", "11")
    row = squeue_line("11", "CANCELLED", reason="DependencyNeverSatisfied")
    found = why(guest.paths, squeue=(0, row, ""))
    assert (found.cause, found.error) == (Cause.DATA, error)
    assert "prepared by run owner" in found.words


@pytest.mark.parametrize(
    ("cause", "words"),
    [("TIME_LIMIT", "time limit"), ("PREEMPTED", "took the nodes away")],
)
def test_stops_from_outside_are_not_explained_by_an_old_failure(
    tmp_path: Path, cause: str, words: str
) -> None:
    run = RunFolder(tmp_path)
    attempt = run.training()
    run.rank_exit(attempt, 1)
    run.event("attempt_ended", attempt=1, cause="USER_ERROR", action="retry", **FAILED)
    run.ended("STOPPED", cause)
    found = why(run.paths)
    assert found.rank is None
    assert words in found.words


def test_a_lost_node_a_cancel_and_no_progress_have_their_words(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "lost")
    run.training()
    lost = {"phase": "train", "host": "n2", "evidence": "no heartbeat from n2 for 31 s"}
    run.event("attempt_ended", attempt=1, cause="NODE_LOST", action="retry", **lost)
    run.ended("STOPPED", "NO_PROGRESS", evidence="3 attempts without a newer checkpoint")
    found = why(run.paths)
    assert "no newer checkpoint; the last: a node went silent" in found.words
    assert found.host == "n2"
    assert "report n2 to the site" in found.advice
    run = RunFolder(tmp_path, "cancelled")
    run.training()
    run.ended("CANCELLED", "CANCELLED", evidence="by me")
    assert "clusterlm resume cancelled" in "\n".join(why(run.paths).lines())


def test_waiting_running_and_unknown_are_said_as_they_are(tmp_path: Path) -> None:
    waiting = RunFolder(tmp_path, "waiting")
    waiting.submitted()
    found = why(waiting.paths, squeue=(0, squeue_line("11", "PENDING", reason="Resources"), ""))
    assert "waiting for nodes to become free" in found.words
    running = RunFolder(tmp_path, "running")
    running.training()
    assert "nothing is wrong, step 40 of 300" in why(running.paths).words
    unknown = RunFolder(tmp_path, "unknown")
    unknown.event("submitted", ago=900.0, phase="train", job_id="12", cluster="slurm")
    found = why(unknown.paths, squeue=(1, "", UNREACHABLE), sacct=(1, "", NO_DATABASE))
    assert "says nothing about the job" in found.words
    assert "Unable to contact" in found.words


def test_a_batch_step_that_died_early_shows_what_it_printed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.submitted()
    run.paths.submitit.mkdir()
    (run.paths.submitit / "11_0_log.err").write_text("ImportError: no module named clusterlm\n")
    row = squeue_line("11", "FAILED", reason="NonZeroExitCode")
    found = why(run.paths, squeue=(0, row, ""), sacct=(1, "", UNKNOWN_ID))
    assert found.cause is Cause.SCHEDULER
    assert found.log_tail == ("ImportError: no module named clusterlm",)


def test_a_wait_for_a_builds_lock_is_not_called_well(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    attempt = run.training()
    run.progress(attempt, step=None, text=f"{WAITS} that no process of this node makes: /t/lock")
    found = why(run.paths)
    assert found.words.startswith("it hangs: waits for the lock of a build")
    assert "nothing is wrong" not in "\n".join(found.lines())


def test_a_full_disk_is_named_also_where_it_swallowed_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    run.training()
    run.ended("STOPPED", "SUPERVISOR", evidence="OSError: [Errno 5] Input/output error")
    assert why(run.paths).cause is Cause.SUPERVISOR
    monkeypatch.setattr(full_disk, "room_at", lambda path: Room(Path("/scratch"), 4096, 3 * 2**30))
    found = why(run.paths)
    assert found.cause is Cause.DISK_FULL
    lines = "\n".join(found.lines())
    assert f"/scratch has 4.0 KiB free of 3.0 GiB (the run: {run.paths.root})" in lines
    for way in ("make room", "CLUSTERLM_RUNS_DIR", "train.keep_checkpoints"):
        assert way in found.advice
    assert "read the end of its log" not in lines


def test_a_run_that_a_full_disk_ended_says_what_room_there_is_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    attempt = run.training()
    error = f"OSError: [Errno 28] No space left on device: '{tmp_path}/x/y'"
    run.rank_exit(attempt, 1, error=error)
    run.event("attempt_ended", attempt=1, cause="DISK_FULL", action="stop", **FAILED)
    run.ended("STOPPED", "DISK_FULL")
    found = why(run.paths)
    assert found.disk.startswith("there is room again: /")
    assert f"(the file it wrote: {tmp_path}/x/y)" in found.disk
