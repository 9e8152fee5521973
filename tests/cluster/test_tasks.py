"""The array that encodes, as readers see it: from its tasks' own records, or from Slurm's rows."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from clusterlm.cluster.cancel import cancel
from clusterlm.cluster.event_words import words_of
from clusterlm.cluster.logs import LogFile, Wanted, newest_lines
from clusterlm.cluster.scheduler import SchedulerView, own_row
from clusterlm.cluster.slurm import parse_sacct, parse_squeue
from clusterlm.cluster.status import RunStatus, StatusReader
from clusterlm.cluster.tasks import read_tasks
from clusterlm.cluster.why import Explanation, explain
from clusterlm.node.files import append_json, read_json, write_json
from clusterlm.paths import TaskPaths
from clusterlm.supervise.causes import Cause, State
from clusterlm.supervise.history import JobRef, read_history
from tests.cluster.fake_host import UNKNOWN_ID, FakeHost
from tests.cluster.run_folders import RunFolder, squeue_line

ARRAY, TASKS = "71", 4
BAD = {"rank": 0, "host": "n3", "code": 2, "signal": None}
BAD |= {"error": "DataError: bad.jsonl:2: not JSON", "evidence": "rank 0 on n3 exited 2"}
GONE = {"squeue": (1, "", UNKNOWN_ID), "sacct": (0, "", "")}


class ArrayFolder(RunFolder):
    """A run whose array was sent; its tasks write one after the other."""

    def __init__(self, runs_dir: Path, name: str = "run", *, owner: str | None = None) -> None:
        super().__init__(runs_dir, name)
        event, whose = ("shares", {"run": owner}) if owner else ("submitted", {})
        for phase, job_id in (("encode", ARRAY), ("preprocess", "80")):
            tasks = {"tasks": TASKS} if phase == "encode" else {}
            fields = {"phase": phase, "job_id": job_id, "cluster": "slurm", **tasks, **whose}
            self.event(event, **fields)
        self.submitted("train", "81" if owner is None else "82")

    def task(self, number: int) -> TaskPaths:
        return self.paths.task(ARRAY, number)

    def says(self, number: int, event: str, **fields: Any) -> None:
        task = self.task(number)
        task.own.mkdir(parents=True, exist_ok=True)
        append_json(task.events, {"time": time.time(), "event": event, "phase": "encode", **fields})

    def runs(self, number: int, *, ago: float = 0.0, state: str = "running") -> None:
        self.says(number, "phase_started", job_id=f"{ARRAY}_{number}", nodes=[f"n{number + 1}"])
        self.says(number, "attempt_started", attempt=1, nodes=[f"n{number + 1}"], ranks=1)
        self.task_beats(number, ago=ago, state=state)

    def task_beats(self, number: int, *, ago: float = 0.0, state: str = "running") -> None:
        task = self.task(number)
        write_json(task.supervisor, {"job_id": f"{ARRAY}_{number}", "state": state})
        moment = time.time() - ago
        os.utime(task.supervisor, (moment, moment))

    def is_done(self, number: int) -> None:
        self.runs(number, state="ended")
        self.says(number, "attempt_ended", attempt=1, cause="DONE")
        self.says(number, "phase_done")

    def fails(self, number: int, *, action: str = "stop", attempt: int = 1, **told: Any) -> None:
        """As `supervise/task.py` does: in the task's own record, and in the run's."""
        fields = {"phase": "encode", "attempt": attempt, "cause": "DATA", "action": action}
        fields |= {**BAD, **told}
        self.says(number, "attempt_ended", **fields)
        self.event("attempt_ended", array=ARRAY, task=number, **fields)
        if action == "stop":
            told = {**fields, "array": ARRAY, "task": number, "state": "STOPPED"}
            write_json(self.task(number).end, told)
            self.event("ended", **told)


@pytest.fixture
def run(tmp_path: Path) -> ArrayFolder:
    return ArrayFolder(tmp_path)


def look(runs_dir: Path, host: FakeHost | None = None, name: str = "run") -> RunStatus:
    reader = StatusReader(runs_dir, SchedulerView(runs_dir, host or FakeHost()))
    (status,) = reader.read([name])
    return status


def squeue(*lines: str) -> FakeHost:
    return FakeHost(squeue=(0, "".join(lines), ""), sacct=(0, "", ""))


def why(run: RunFolder, host: FakeHost | None = None) -> Explanation:
    status = look(run.paths.root.parent, host, run.paths.name)
    return explain(run.paths, status)


# -- status --------------------------------------------------------------------------------------


def test_status_counts_the_tasks_that_are_done_and_asks_nobody(
    tmp_path: Path, run: ArrayFolder
) -> None:
    run.is_done(0)
    run.runs(1)
    run.runs(2, ago=10)
    host = FakeHost()
    status = look(tmp_path, host)
    assert (status.state, status.phase) == (State.PREPROCESSING, "encode")
    assert status.evidence == "1 of 4 tasks done, 2 running"
    assert (status.nodes, status.source, status.attempt) == (["n2", "n3"], "supervisor", None)
    assert status.job_ids == ["71", "80", "81"]
    assert host.calls == []


def test_a_task_that_is_tried_again_is_told_while_the_others_go_on(
    tmp_path: Path, run: ArrayFolder
) -> None:
    run.runs(0)
    run.runs(2)
    run.fails(2, action="retry", cause="RANK_KILLED", evidence="rank 0 on n3 was ended by SIGKILL")
    status = look(tmp_path)
    assert (status.state, status.cause) == (State.RETRYING, Cause.RANK_KILLED)
    assert (status.rank, status.host) == (0, "n3")
    assert "task 2: rank 0 on n3 was ended by SIGKILL" in status.evidence
    # the second attempt runs: it goes well, and the failure is not forgotten
    run.says(2, "attempt_started", attempt=2, nodes=["n3"])
    status = look(tmp_path)
    assert status.state is State.PREPROCESSING
    assert "task 2 was tried again after: rank 0 on n3" in status.evidence


def test_a_task_that_waits_in_the_queue_again_is_not_counted_as_running(
    tmp_path: Path, run: ArrayFolder
) -> None:
    run.runs(0)
    run.runs(1)
    run.says(1, "attempt_ended", attempt=1, cause="PREEMPTED", action="requeue")
    run.says(1, "requeued")
    assert look(tmp_path).evidence == "0 of 4 tasks done, 1 running"
    run.runs(2, ago=500.0)
    assert look(tmp_path).evidence == "0 of 4 tasks done, 1 running"


@pytest.mark.parametrize(
    ("rows", "state", "words"),
    [
        ([("71_[0-3]", "PENDING", "Resources")], State.PENDING, "waiting for nodes"),
        (
            [("71_[1-3%1]", "PENDING", "JobArrayTaskLimit"), ("71_0", "RUNNING", "None")],
            State.PREPROCESSING,
            "0 of 4 tasks done; in job 71 on n[1-2]",
        ),
        (
            [("71_0", "COMPLETED", "None"), ("71_1", "NODE_FAIL", "None")],
            State.STOPPED,
            "the scheduler says NODE_FAIL 0:0 of task 1",
        ),
        ([("71_0", "CANCELLED", "None")], State.CANCELLED, "the scheduler says CANCELLED"),
    ],
)
def test_slurms_rows_count_where_no_task_speaks(
    tmp_path: Path, run: ArrayFolder, rows: list[Any], state: State, words: str
) -> None:
    lines = [squeue_line(job, s, reason=reason) for job, s, reason in rows]
    waits = [squeue_line(job, "PENDING", reason="Dependency") for job in ("80", "81")]
    status = look(tmp_path, squeue(*lines, *waits))
    assert (status.state, status.phase) == (state, "encode")
    assert words in status.evidence


def test_when_all_tasks_are_done_the_job_behind_them_is_what_matters(
    tmp_path: Path, run: ArrayFolder
) -> None:
    for number in range(TASKS):
        run.is_done(number)
    waits = squeue_line("80", "PENDING", reason="Priority")
    status = look(tmp_path, squeue(squeue_line("71_0", "COMPLETED"), waits))
    assert (status.state, status.phase) == (State.PENDING, "preprocess")
    run.started("preprocess", "80")
    status = look(tmp_path)
    assert (status.state, status.phase) == (State.PREPROCESSING, "preprocess")
    run.event("phase_done", phase="preprocess")
    assert look(tmp_path, squeue(squeue_line("81", "PENDING"))).phase == "train"


def test_a_run_that_shares_the_data_sees_the_tasks_of_the_other(
    tmp_path: Path, run: ArrayFolder
) -> None:
    other = ArrayFolder(tmp_path, "other", owner="run")
    run.is_done(0)
    run.runs(1)
    status = look(tmp_path, name="other")
    assert (status.state, status.source) == (State.PREPROCESSING, "supervisor")
    assert status.evidence == "1 of 4 tasks done, 1 running"
    run.fails(1)
    run.task_beats(1, state="ended")
    cancelled = [squeue_line("71_1", "CANCELLED"), squeue_line("71_0", "COMPLETED")]
    never = [squeue_line(j, "CANCELLED", reason="DependencyNeverSatisfied") for j in ("80", "82")]
    found = why(other, squeue(*cancelled, *never))
    assert found.state is State.STOPPED
    assert "task 1: rank 0 on n3 failed (exit 2): DataError: bad.jsonl:2: not JSON" in found.words
    assert "run run" in found.words


def test_tasks_of_an_earlier_array_do_not_count(tmp_path: Path, run: ArrayFolder) -> None:
    run.is_done(0)
    run.event("resumed", by="me")
    run.event("submitted", phase="encode", job_id="90", cluster="slurm", tasks=2)
    run.event("submitted", phase="preprocess", job_id="91", cluster="slurm")
    array = read_history(run.paths).jobs["encode"]
    assert read_tasks(run.paths, array, time.time()).words == "0 of 2 tasks done"


# -- why, logs, events ---------------------------------------------------------------------------


def test_why_names_the_task_its_node_and_the_first_error(tmp_path: Path, run: ArrayFolder) -> None:
    run.runs(0)
    run.runs(2)
    attempt = run.task(2).attempt("encode", 1)
    attempt.make()
    run.rank_exit(attempt, 0, host="n3", code=2, error=BAD["error"], traceback="Traceback of it")
    attempt.rank_log(0).write_text("DataError\n")
    # another task failed before it, and was tried again
    run.fails(0, action="retry", cause="RANK_KILLED", error=None, host="n1")
    run.fails(2)
    found = why(run)
    assert (found.phase, found.task, found.host, found.cause) == ("encode", 2, "n3", Cause.DATA)
    assert "task 2: rank 0 on n3 failed (exit 2): DataError: bad.jsonl:2: not JSON" in found.words
    assert found.traceback == "Traceback of it"
    assert found.log == str(attempt.rank_log(0))
    assert found.same_before == 0
    assert look(tmp_path).phase == "encode"


def test_why_names_the_node_also_of_what_no_rank_has_said(run: ArrayFolder) -> None:
    run.runs(1)
    run.fails(1, cause="LAUNCH", rank=None, host="n2", error="srun: error: no such user")
    assert "task 1 on n2: srun: error: no such user" in why(run).words


def test_lines_of_tasks_say_whose_they_are_and_can_be_chosen(run: ArrayFolder) -> None:
    run.paths.submitit.mkdir()
    for number in (0, 2):
        run.runs(number)
        attempt = run.task(number).attempt("encode", 1)
        attempt.make()
        attempt.rank_log(0).write_text(f"tokenizing {number}\n")
        (run.paths.submitit / f"71_{number}_0_log.err").write_text(f"slurm {number}\n")
    lines, _ = newest_lines(run.paths, Wanted(), 50)
    assert {"[task 0 rank 0] tokenizing 0", "[task 2 batch] slurm 2"} <= set(lines)
    assert "--- encode task 2 attempt 1 ---" in lines
    own, _ = newest_lines(run.paths, Wanted(phase="encode", task=2), 50)
    assert own == ["[task 2 rank 0] tokenizing 2", "[task 2 batch] slurm 2"]
    assert newest_lines(run.paths, Wanted(phase="preprocess"), 50)[0] == []
    write_json(attempt.heartbeats / "node0.json", {"host": "n3"})
    assert LogFile(attempt.node_log(0), attempt).label() == "[task 2 n3]"


def test_events_of_tasks_are_words(run: ArrayFolder) -> None:
    run.fails(2)
    history = read_history(run.paths)
    assert words_of({"event": "attempt_ended", **history.ends[-1]}).startswith(
        "encode task 2 attempt 1 ended: the data cannot be used"
    )
    assert history.end is not None
    assert words_of({"event": "ended", **history.end}).startswith(
        "STOPPED: encode task 2: the data"
    )
    submitted = {"event": "submitted", "phase": "encode", "job_id": "71", "tasks": 4}
    assert words_of(submitted) == "encode submitted as job 71, 4 tasks"


# -- cancel --------------------------------------------------------------------------------------


def test_a_cancel_takes_all_three_jobs(run: ArrayFolder) -> None:
    host = FakeHost()
    cancel(run.paths, host, is_running=lambda: False, tell=print)
    assert host.calls == [["scancel", "71", "80", "81"]]


def test_a_cancel_leaves_what_another_run_waits_for_and_does_not_wait_itself(
    tmp_path: Path, run: ArrayFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    write_json(run.paths.lock, {"fingerprint": "f"})
    write_json(tmp_path / "cache" / "f.claim.json", {"run": "run", "users": ["run", "other"]})
    run.runs(0)
    host, began = FakeHost(), time.monotonic()
    done = cancel(run.paths, host, is_running=lambda: True, tell=print)
    assert time.monotonic() - began < 30
    assert done.kept_preprocess_for == ("other",)
    assert host.calls == [["scancel", "81"]]
    assert (read_json(tmp_path / "cache" / "f.claim.json") or {})["users"] == ["other"]


# -- rows of arrays ------------------------------------------------------------------------------


def of_array(rows: list[tuple[str, str]], *, restarts: int = 0) -> str | None:
    at = 1_800_000_000.0
    text = "".join(squeue_line(job, s, at=at, restarts=restarts) for job, s in rows)
    found = own_row(JobRef("encode", "71", "slurm", at, "run"), parse_squeue(text).get("71", []))
    return found.state if found else None


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        ([("71_[2-9%2]", "PENDING"), ("71_0", "RUNNING"), ("71_1", "FAILED")], "RUNNING"),
        ([("71_0", "COMPLETED"), ("71_[1-2]", "PENDING")], "PENDING"),
        # 20.11 prints the last one that waits so, 24.11 as 71_4
        ([("71_0", "COMPLETED"), ("71_[4]", "PENDING")], "PENDING"),
        ([("71_0", "COMPLETED"), ("71_1", "FAILED"), ("71_2", "COMPLETED")], "FAILED"),
        ([("71_0", "COMPLETED"), ("71_1", "COMPLETED")], "COMPLETED"),
        ([("71_0", "COMPLETED"), ("71_1", "HIBERNATING")], "HIBERNATING"),
        ([], None),
    ],
)
def test_an_array_is_as_its_tasks_are(rows: list[tuple[str, str]], state: str | None) -> None:
    assert of_array(rows) == state


def test_a_requeued_task_is_followed_by_its_own_rows_alone() -> None:
    """As sacct -D prints them: the task's second row has another submit time."""
    first, second = "2026-11-25T18:53:42", "2026-11-25T18:53:45"
    text = "\n".join(
        [
            f"8_0|RUNNING|0:0|{first}|node1|None",
            f"8_1|REQUEUED|0:0|{first}|node2|None",
            f"8_2|COMPLETED|0:0|{first}|node3|None",
            f"8_1|PENDING|0:0|{second}|None assigned|BeginTime",
        ]
    )
    rows = parse_sacct(text)["8"]
    assert [(row.task, row.restarts) for row in rows] == [("0", 0), ("1", 0), ("2", 0), ("1", 1)]
    submitted = time.mktime(time.strptime(first, "%Y-%m-%dT%H:%M:%S"))
    job = JobRef("encode", "8", "slurm", submitted, "run")
    found = own_row(job, rows)
    assert (found and found.state, found and found.task) == ("RUNNING", "0")
    found = own_row(job, rows[1:])
    assert (found and found.state, found and found.task) == ("PENDING", "1")
