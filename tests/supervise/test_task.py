"""One task of the array: what it keeps to itself, and what it brings on all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clusterlm.node.files import read_json, read_jsonl, write_json
from clusterlm.paths import RunPaths, TaskPaths
from clusterlm.spec.job import Job
from clusterlm.supervise import allocation, task
from clusterlm.supervise.allocation import Allocation, read_allocation
from clusterlm.supervise.causes import Cause, State
from clusterlm.supervise.history import read_history, record
from clusterlm.supervise.phase_run import PhaseRun
from clusterlm.supervise.views import Finding, Verdict

JOB = Job.model_validate(
    {
        "name": "run",
        "cluster": "slurm",
        "data": {
            "tokenizer": {"train": {"vocab_size": 300}},
            "block_size": 8,
            "sources": [{"kind": "text", "path": "/x"}],
            "tasks": 4,
        },
        "train": {"command": ["x.sh"]},
    }
)
FAILED = {"phase": "encode", "attempt": 1, "cause": "DATA", "host": None, "evidence": "not JSON"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    """A run in its folder, and a scancel that notes what it was asked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    scancel = programs / "scancel"
    scancel.write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/scancelled\n')
    scancel.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", str(tmp_path / "cache"))
    paths = RunPaths(tmp_path / "run")
    paths.root.mkdir()
    record(paths, "created", run="run", cluster="slurm")
    paths.spec.write_text(JOB.model_dump_json(by_alias=True))
    write_json(paths.lock, {"fingerprint": "f"})
    return paths


def allocation_of(number: int) -> Allocation:
    return Allocation(f"71_{number}", 0, (f"node{number + 1}",), True, array="71", task=number)


def phase_of(run: RunPaths, number: int) -> PhaseRun:
    given = allocation_of(number)
    return PhaseRun(task.records_of(run, given), JOB, "encode", given)


def failed(cause: Cause = Cause.DATA, state: State = State.STOPPED) -> Verdict:
    return Verdict(state, cause, "not JSON", finding=Finding(cause, "not JSON", rank=0))


def events(paths: RunPaths) -> list[dict[str, Any]]:
    return read_jsonl(paths.events)[0]


def scancelled(run: RunPaths) -> list[str]:
    file = run.root.with_name("scancelled")
    return file.read_text().split() if file.exists() else []


def test_a_task_is_named_by_its_array_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "_hostnames", lambda text: [text])
    environ = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "75", "SLURM_JOB_NODELIST": "node2"}
    of_array = {"SLURM_ARRAY_JOB_ID": "71", "SLURM_ARRAY_TASK_ID": "3"}
    found = read_allocation({**environ, **of_array})
    assert (found.job_id, found.array, found.task) == ("71_3", "71", 3)
    found = read_allocation(environ)
    assert (found.job_id, found.array) == ("75", "")


def test_each_task_keeps_records_of_its_own(run: RunPaths) -> None:
    for number in (0, 3):
        phase_of(run, number).begin()
        own = run.task("71", number)
        assert read_history(own).nodes == []
        assert [e["event"] for e in events(own)] == ["created", "phase_started"]
        assert (read_json(own.supervisor) or {})["job_id"] == f"71_{number}"
    assert [e["event"] for e in events(run)] == ["created"]
    assert not run.supervisor.exists()
    # a requeue goes on in the same record
    phase_of(run, 3).begin()
    assert [e["event"] for e in events(run.task("71", 3))].count("created") == 1


def test_a_deleted_run_does_not_come_back_by_its_tasks(run: RunPaths, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        task.records_of(RunPaths(tmp_path / "deleted"), allocation_of(0))


def test_a_job_of_its_own_keeps_its_records_in_the_run(run: RunPaths) -> None:
    given = Allocation("75", 0, ("node1",), is_slurm=True)
    assert task.records_of(run, given) == run
    assert task.environment_of(run, 4) == {}
    assert task.ended_by_another(run) is None
    task.tell_failure(run, "node1", FAILED)
    task.end_all(run, "node1", FAILED)
    assert [e["event"] for e in events(run)] == ["created"]
    assert scancelled(run) == []


def test_the_step_of_a_task_is_told_its_number(run: RunPaths) -> None:
    own = run.task("71", 3)
    assert task.environment_of(own, JOB.encode_tasks) == {"CLUSTERLM_TASK": "3/4"}
    assert own.attempt("encode", 2).root == run.root / "encode" / "71" / "3" / "2"
    assert own.spec == run.spec


@pytest.mark.parametrize("cause", list(Cause))
def test_only_failures_are_told_to_the_run(run: RunPaths, cause: Cause) -> None:
    own = task.records_of(run, allocation_of(2))
    task.tell_failure(own, "node3", {**FAILED, "cause": cause.name})
    told = [e for e in events(run) if e["event"] == "attempt_ended"]
    is_failure = cause not in (Cause.DONE, Cause.CANCELLED, Cause.TIME_LIMIT, Cause.PREEMPTED)
    assert len(told) == is_failure
    if told:
        assert (told[0]["task"], told[0]["array"], told[0]["host"]) == (2, "71", "node3")


def test_the_first_end_for_good_ends_the_run_and_all_other_tasks(run: RunPaths) -> None:
    first, second = phase_of(run, 1), phase_of(run, 2)
    assert not second.is_cancelled()
    first.end(failed())
    assert second.is_cancelled()
    assert scancelled(run) == ["71"]
    request = task.ended_by_another(second.run)
    assert request == {"by": "task 1", "now": True}
    # the same mistake met by another task a moment later is not told again
    task.tell_failure(second.run, "node3", FAILED)
    second.end(failed())
    ended = [e for e in events(run) if e["event"] in ("ended", "attempt_ended")]
    assert [(e["task"], e["cause"], e["evidence"]) for e in ended] == [
        (1, "DATA", "task 1: not JSON")
    ]
    assert scancelled(run) == ["71"]
    assert read_history(second.run).end is not None


def test_a_cancel_is_one_end_however_many_tasks_obey(run: RunPaths) -> None:
    write_json(run.cancel, {"by": "me", "now": False})
    for number in range(3):
        phase = phase_of(run, number)
        assert phase.is_cancelled()
        phase.end(failed(Cause.CANCELLED, State.CANCELLED))
    assert [e["state"] for e in events(run) if e["event"] == "ended"] == ["CANCELLED"]


def test_a_cancel_does_not_end_tasks_that_another_run_waits_for(
    run: RunPaths, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    claim = tmp_path / "cache" / "f.claim.json"
    claim.write_text(json.dumps({"users": ["run", "other"]}))
    write_json(run.cancel, {"by": "me", "now": False})
    assert not phase_of(run, 0).is_cancelled()
    # but another task's end for good does
    phase_of(run, 1).end(failed())
    assert phase_of(run, 0).is_cancelled()


def test_a_new_array_begins_anew(run: RunPaths) -> None:
    phase_of(run, 1).end(failed())
    again = Allocation("90_1", 0, ("node2",), is_slurm=True, array="90", task=1)
    phase = PhaseRun(task.records_of(run, again), JOB, "encode", again)
    assert not phase.is_cancelled()
    assert isinstance(phase.run, TaskPaths)
    assert phase.run.attempt_numbers("encode") == []


def test_a_scancel_that_is_refused_is_said_and_no_more(
    run: RunPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bin" / "scancel").write_text(
        "#!/bin/bash\necho 'scancel: error: away' >&2\nexit 1\n"
    )
    phase_of(run, 1).end(failed())
    assert "away" in capsys.readouterr().out
    assert phase_of(run, 2).is_cancelled()
