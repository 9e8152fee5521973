from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.cluster.answers import Answers, AnswersFile
from clusterlm.cluster.scheduler import SchedulerView, own_row
from clusterlm.supervise.history import JobRef
from clusterlm.supervise.slurm_states import JobRow
from tests.cluster.fake_host import (
    NO_ACCOUNTING,
    NO_DATABASE,
    UNKNOWN_ID,
    UNREACHABLE,
    Clock,
    FakeHost,
)
from tests.cluster.run_folders import squeue_line

AWAY = (1, "", UNREACHABLE)


def job(job_id: str = "11", *, at: float = 1_800_000_000.0) -> JobRef:
    return JobRef("train", job_id, "slurm", at, "run")


def jobs(count: int) -> list[JobRef]:
    return [job(str(100 + i)) for i in range(count)]


def squeue_says(found: list[JobRef], state: str = "PENDING") -> tuple[int, str, str]:
    return 0, "".join(squeue_line(j.job_id, state, at=j.submitted) for j in found), ""


def sacct_line(job_id: str, state: str, at: float = 1_800_000_000.0) -> str:
    return f"{job_id}|{state}|0:0|{datetime.fromtimestamp(at).isoformat()}|n1|None\n"


@pytest.mark.parametrize("num_jobs", [1, 20])
@pytest.mark.parametrize("num_watchers", [1, 20])
def test_watching_costs_four_calls_in_two_minutes_and_thirty_in_an_hour(
    tmp_path: Path, num_jobs: int, num_watchers: int
) -> None:
    clock, found = Clock(), jobs(num_jobs)
    host = FakeHost(squeue=squeue_says(found))
    views = [SchedulerView(tmp_path, host, clock=clock) for _ in range(num_watchers)]
    while clock() < 1_800_003_600.0:
        for index, view in enumerate(views):
            seen = view.look([found[index % num_jobs]])
        is_early = clock() < 1_800_000_120.0
        assert len(host.calls) <= (4 if is_early else 30)
        clock.sleep(4 if is_early else 30)
    assert next(iter(seen.values())).row is not None
    # one call for all
    assert host.calls[-1][-1].count(",") == min(num_jobs, num_watchers) - 1


def test_twenty_watchers_that_start_one_after_the_other_share_the_budget(tmp_path: Path) -> None:
    clock, found = Clock(), jobs(20)
    host = FakeHost(squeue=squeue_says(found))
    views = [SchedulerView(tmp_path, host, clock=clock) for _ in range(20)]
    for second in range(0, 120, 2):
        for view, one in list(zip(views, found, strict=True))[: second + 1]:
            view.look([one])
        clock.sleep(2)
    assert len(host.calls) <= 4
    assert all(view.look([one])[one.job_id].row for view, one in zip(views, found, strict=True))


def test_a_command_that_looks_once_makes_two_calls_at_most(tmp_path: Path) -> None:
    clock, found = Clock(), jobs(200)
    host = FakeHost(squeue=squeue_says(found[:150]), sacct=(0, sacct_line("299", "FAILED"), ""))
    seen = SchedulerView(tmp_path, host, clock=clock).look(found, max_age_s=5.0)
    assert [argv[0] for argv in host.calls] == ["squeue", "sacct"]
    assert host.calls[1][-1].count(",") == 49
    assert (seen["100"].source, seen["299"].source) == ("squeue", "sacct")
    assert seen["250"].row is None
    assert not seen["250"].is_blind
    # typed again at once: the answers are fresh
    SchedulerView(tmp_path, host, clock=clock).look(found[:150], max_age_s=5.0)
    assert len(host.calls) == 2


def test_squeue_away_sacct_answers(tmp_path: Path) -> None:
    host = FakeHost(squeue=AWAY, sacct=(0, sacct_line("11", "RUNNING"), ""))
    seen = SchedulerView(tmp_path, host, clock=Clock()).look([job()])["11"]
    assert (seen.source, seen.is_blind) == ("sacct", False)
    assert seen.row is not None
    assert seen.row.state == "RUNNING"
    assert "Unable to contact" in seen.trouble


@pytest.mark.parametrize("err", [NO_DATABASE, NO_ACCOUNTING])
def test_sacct_away_squeue_alone_counts(tmp_path: Path, err: str) -> None:
    host = FakeHost(squeue=(1, "", UNKNOWN_ID), sacct=(1, "", err))
    seen = SchedulerView(tmp_path, host, clock=Clock()).look([job()])["11"]
    assert (seen.row, seen.is_blind, seen.source) == (None, False, "squeue")


def test_both_away_is_blind_with_the_age_of_the_last_answer(tmp_path: Path) -> None:
    clock = Clock()
    host = FakeHost(squeue=squeue_says([job()]))
    view = SchedulerView(tmp_path, host, clock=clock)
    view.look([job()])
    host.answers = {"squeue": AWAY, "sacct": (1, "", NO_DATABASE)}
    for _ in range(90):
        clock.sleep(1)
        seen = view.look([job()])["11"]
    assert seen.is_blind
    assert seen.age_s == pytest.approx(90)
    assert seen.row is not None
    assert len(host.calls) <= 7
    host.answers = {"squeue": squeue_says([job()], "RUNNING")}
    for _ in range(31):
        if not view.look([job()])["11"].is_blind:
            break
        clock.sleep(1)
    assert not view.look([job()])["11"].is_blind


def test_a_machine_without_slurm_is_blind_and_no_error(tmp_path: Path) -> None:
    host = FakeHost(squeue=(127, "", "squeue: not found"), sacct=(127, "", "sacct: not found"))
    seen = SchedulerView(tmp_path, host, clock=Clock()).look([job()], max_age_s=5.0)["11"]
    assert seen.is_blind
    assert "not found" in seen.trouble


def test_the_end_of_a_job_is_not_asked_for_again_and_again(tmp_path: Path) -> None:
    clock = Clock()
    host = FakeHost(squeue=squeue_says([job()], "CANCELLED"))
    view = SchedulerView(tmp_path, host, clock=clock)
    for _ in range(100):
        view.look([job()], max_age_s=5.0)
        clock.sleep(5)
    assert len(host.calls) == 1


def test_while_somebody_asks_the_last_answer_is_good_enough(tmp_path: Path) -> None:
    clock = Clock()
    host = FakeHost(squeue=squeue_says([job()]))
    view = SchedulerView(tmp_path, host, clock=clock)
    view.look([job()])
    clock.sleep(1000)
    with AnswersFile(tmp_path).claimed() as is_ours:
        assert is_ours
        seen = view.look([job()])["11"]
    assert len(host.calls) == 1
    assert seen.age_s == 1000


def test_a_look_that_must_be_fresh_waits_for_the_one_who_asks(tmp_path: Path) -> None:
    clock = Clock()
    host = FakeHost(squeue=squeue_says([job()]))
    file = AnswersFile(tmp_path)
    with file.claimed():
        view = SchedulerView(tmp_path, host, clock=clock, sleep=_answer_comes(file, clock))
        seen = view.look([job()], max_age_s=5.0)["11"]
    assert host.calls == []
    assert seen.row is not None


def _answer_comes(file: AnswersFile, clock: Clock) -> Callable[[float], None]:
    def sleep(seconds: float) -> None:
        answers = Answers(asked=clock())
        row = JobRow("11", "RUNNING")
        answers.take(["11"], "squeue", {"11": [row]}, clock())
        file.write(answers)

    return sleep


def test_a_glance_never_waits(tmp_path: Path) -> None:
    class SlowHost(FakeHost):
        def run(self, argv, *, timeout_s=30.0):  # type: ignore[no-untyped-def]
            time.sleep(0.5)
            return super().run(argv, timeout_s=timeout_s)

    host = SlowHost(squeue=squeue_says([job(at=time.time())]))
    view = SchedulerView(tmp_path, host)
    began = time.monotonic()
    assert view.glance([job(at=time.time())])["11"].is_blind
    assert time.monotonic() - began < 5
    time.sleep(1.0)
    assert view.glance([job(at=time.time())])["11"].row is not None
    assert len(host.calls) == 1


@given(st.one_of(st.text(), st.recursive(st.none() | st.integers(), st.lists).map(json.dumps)))
def test_a_broken_memory_costs_one_call(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ".scheduler.json").write_text(text, encoding="utf-8")
        host = FakeHost(squeue=squeue_says([job()]))
        view = SchedulerView(Path(folder), host, clock=Clock())
        assert view.look([job()])["11"].row is not None


def test_a_folder_that_cannot_be_written_to_costs_the_sharing_only(tmp_path: Path) -> None:
    clock = Clock()
    host = FakeHost(squeue=squeue_says([job()]))
    view = SchedulerView(tmp_path / "gone", host, clock=clock)
    for _ in range(120):
        assert view.look([job()])["11"].row is not None
        clock.sleep(1)
    assert len(host.calls) <= 4


def test_the_memory_is_private(tmp_path: Path) -> None:
    host = FakeHost(squeue=squeue_says([job()]))
    SchedulerView(tmp_path, host, clock=Clock()).look([job()])
    assert (tmp_path / ".scheduler.json").stat().st_mode & 0o777 == 0o600


def test_an_id_that_slurm_has_given_to_another_job_is_not_ours(tmp_path: Path) -> None:
    other = squeue_line("11", "RUNNING", at=1_800_000_000.0 + 86400)
    host = FakeHost(squeue=(0, other, ""), sacct=(0, sacct_line("11", "FAILED"), ""))
    seen = SchedulerView(tmp_path, host, clock=Clock()).look([job()], max_age_s=5.0)["11"]
    assert seen.row is not None
    assert (seen.row.state, seen.source) == ("FAILED", "sacct")


def row(state: str, *, later_s: float = 0.0, source: str = "sacct", restarts: int = 0) -> JobRow:
    at = datetime.fromtimestamp(1_800_000_000.0 + later_s).isoformat()
    return JobRow("11", state, submit_time=at, source=source, restarts=restarts)


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        ([row("RUNNING", source="squeue")], "RUNNING"),
        ([row("PENDING", later_s=9e4, source="squeue", restarts=1)], "PENDING"),
        ([row("RUNNING", later_s=9e4, source="squeue")], None),
        ([row("REQUEUED"), row("RUNNING", later_s=9e4)], "RUNNING"),
        ([row("RESIZING"), row("COMPLETED")], "COMPLETED"),
        ([row("COMPLETED"), row("RUNNING", later_s=9e4)], "COMPLETED"),
        ([row("COMPLETED", later_s=-9e4), row("RUNNING")], "RUNNING"),
        ([row("COMPLETED", later_s=-9e4)], None),
        ([JobRow("11", "RUNNING", submit_time="Unknown")], "RUNNING"),
        ([], None),
    ],
)
def test_a_job_is_its_id_and_its_submit_time_or_a_restart(
    rows: list[JobRow], state: str | None
) -> None:
    found = own_row(job(), rows)
    assert (found.state if found else None) == state


def test_a_shared_job_was_submitted_before_we_knew_it() -> None:
    assert own_row(replace(job(), submitted=0.0), [row("RUNNING", later_s=-9e4)]) is not None


def local_job(**fields: object) -> JobRef:
    here = JobRef("train", str(os.getpid()), "local", 0.0, "run", host=socket.gethostname())
    return replace(here, **fields)  # type: ignore[arg-type]


def test_a_local_job_is_a_process_and_costs_no_call(tmp_path: Path) -> None:
    host, started = FakeHost(), psutil.Process().create_time()
    view = SchedulerView(tmp_path, host)
    me = local_job(pid_started=started)
    seen = view.look([me], max_age_s=0.0)[me.job_id]
    assert (seen.source, seen.row.state if seen.row else "") == ("process", "RUNNING")
    # the same pid, another process
    seen = view.look([local_job(pid_started=started - 60)])[me.job_id]
    assert (seen.row, seen.is_blind) == (None, False)
    # another machine's process table cannot be read
    assert view.look([local_job(host="elsewhere")])[me.job_id].is_blind
    assert host.calls == []


def test_only_numbers_reach_a_command_line(tmp_path: Path) -> None:
    host = FakeHost()
    view = SchedulerView(tmp_path, host, clock=Clock())
    assert view.look([job("--help")], max_age_s=5.0)["--help"].is_blind
    assert host.calls == []
