from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.cluster.scheduler import SchedulerView
from clusterlm.cluster.status import (
    RunStatus,
    StatusReader,
    find_run,
    refuse_living,
    supervisor_lives,
)
from clusterlm.errors import RunError
from clusterlm.supervise.causes import Cause, State
from tests.cluster.fake_host import NO_DATABASE, UNKNOWN_ID, UNREACHABLE, FakeHost
from tests.cluster.run_folders import RunFolder, squeue_line

JSON_FIELDS = {
    *("run", "cluster", "state", "phase", "cause", "advice", "attempt", "job_ids", "nodes"),
    *("step", "total_steps", "loss", "tokens_per_s", "eta_s", "updated_s_ago", "source"),
}
GONE = {"squeue": (1, "", UNKNOWN_ID), "sacct": (0, "", "")}
AWAY = {"squeue": (1, "", UNREACHABLE), "sacct": (1, "", NO_DATABASE)}


def look(runs_dir: Path, host: FakeHost | None = None) -> RunStatus:
    """The state of the only run."""
    reader = StatusReader(runs_dir, SchedulerView(runs_dir, host or FakeHost()))
    (status,) = reader.read()
    return status


def squeue(*lines: str) -> dict[str, tuple[int | None, str, str]]:
    return {"squeue": (0, "".join(lines), ""), "sacct": (0, "", "")}


def test_a_healthy_run_is_read_from_its_own_records_alone(tmp_path: Path) -> None:
    RunFolder(tmp_path).training()
    host = FakeHost()
    status = look(tmp_path, host)
    assert status.state is State.TRAINING
    assert (status.step, status.total_steps, status.loss) == (40, 300, 5.1)
    assert (status.attempt, status.nodes, status.job_ids) == (1, ["n1", "n2"], ["11"])
    assert status.source == "supervisor"
    assert host.calls == []


def test_json_has_the_promised_fields(tmp_path: Path) -> None:
    RunFolder(tmp_path).training()
    fields = look(tmp_path).to_json()
    assert set(fields) >= JSON_FIELDS
    assert {"rank", "host", "error", "evidence"} <= set(fields)
    assert json.loads(json.dumps(fields)) == fields


def test_a_failed_rank_shows_before_the_supervisor_has_said_so(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    attempt = run.training()
    run.rank_exit(attempt, 0, ended_by="sibling", code=None, signal="SIGKILL")
    run.rank_exit(attempt, 1)
    status = look(tmp_path)
    assert status.state is State.RETRYING
    assert (status.rank, status.host, status.cause) == (1, "n2", Cause.USER_ERROR)
    assert status.error == "ValueError: no such key"
    assert "exit 3" in status.evidence


def test_a_rank_that_we_ended_ourselves_is_no_failure(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.rank_exit(run.training(), 1, ended_by="abort", code=None, signal="SIGKILL")
    assert look(tmp_path).state is State.TRAINING


def test_a_silent_node_is_shown_though_slurm_sees_a_healthy_job(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.training()
    run.beat(nodes={"n1": 2.0, "n2": 25.0})
    status = look(tmp_path)
    assert (status.state, status.cause) == (State.STALLED, Cause.NODE_LOST)
    assert "n2" in status.evidence


def test_a_file_server_whose_clock_is_ahead_makes_no_negative_age(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    attempt = run.training()
    run.beat(ago=-100.0)
    os.utime(attempt.progress, (time.time() + 100, time.time() + 100))
    status = look(tmp_path)
    assert (status.state, status.updated_s_ago) == (State.TRAINING, 0.0)


@pytest.mark.parametrize("beat", [{"ago": 500.0}, {"state": "ended"}, {"job_id": "9"}])
def test_a_supervisor_that_no_longer_speaks_makes_us_ask(
    tmp_path: Path, beat: dict[str, object]
) -> None:
    run = RunFolder(tmp_path)
    run.training()
    run.beat(**beat)  # type: ignore[arg-type]
    host = FakeHost(**squeue(squeue_line("11", "RUNNING")))
    status = look(tmp_path, host)
    assert host.asked("squeue") == 1
    assert status.source == "squeue"
    assert status.state in (State.STALLED, State.STARTING)


def test_a_waiting_job_says_why(tmp_path: Path) -> None:
    RunFolder(tmp_path).submitted()
    host = FakeHost(**squeue(squeue_line("11", "PENDING", reason="Resources")))
    status = look(tmp_path, host)
    assert (status.state, status.evidence) == (State.PENDING, "waiting for nodes to become free")


def test_blind_is_unknown_with_age_and_reason_and_never_an_end(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.event("submitted", ago=500.0, phase="train", job_id="11", cluster="slurm")
    status = look(tmp_path, FakeHost(**AWAY))
    assert status.state is State.UNKNOWN
    assert not status.state.is_final
    assert "Unable to contact slurm controller" in status.evidence
    assert "look again" in status.advice


def test_a_job_that_sbatch_took_a_moment_ago_waits_and_is_not_unknown(tmp_path: Path) -> None:
    RunFolder(tmp_path).submitted()
    assert look(tmp_path, FakeHost(**AWAY)).state is State.PENDING


def test_a_job_that_is_gone_without_a_word_is_stopped(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.training()
    run.beat(ago=500.0)
    status = look(tmp_path, FakeHost(**GONE))
    assert (status.state, status.cause) == (State.STOPPED, Cause.VANISHED)


def test_an_end_written_while_we_asked_the_scheduler_counts(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.training()
    run.beat(ago=500.0)

    class EndsMeanwhile(FakeHost):
        def run(self, argv, *, timeout_s=30.0):  # type: ignore[no-untyped-def]
            if argv[0] == "sacct":
                run.ended()
            return super().run(argv, timeout_s=timeout_s)

    assert look(tmp_path, EndsMeanwhile(**GONE)).state is State.DONE


def test_somebody_elses_scancel_is_a_word_and_no_crash(tmp_path: Path) -> None:
    RunFolder(tmp_path).submitted()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S")
    sacct = (0, f"11|CANCELLED by 0|0:0|{moment}|n1|None\n", "")
    status = look(tmp_path, FakeHost(squeue=(1, "", UNKNOWN_ID), sacct=sacct))
    assert status.state is State.CANCELLED
    assert "by uid 0" in status.evidence


def test_a_requeued_run_waits_even_while_the_last_answer_says_running(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.training()
    host = FakeHost(**squeue(squeue_line("11", "RUNNING")))
    view = SchedulerView(tmp_path, host)
    run.beat(ago=500.0)
    reader = StatusReader(tmp_path, view)
    reader.read()
    run.event("attempt_ended", phase="train", attempt=1, cause="NODE_LOST", evidence="n2 silent")
    run.event("requeued", phase="train", job_id="11", cause="NODE_LOST")
    (status,) = reader.glance()
    assert status.state is State.PENDING
    assert "n2 silent" in status.evidence


def test_a_waiting_run_says_when_slurm_expects_it_to_start(tmp_path: Path) -> None:
    def waits(start: str) -> str:
        # a folder each: what squeue said is kept for some seconds
        folder = tmp_path / start
        RunFolder(folder).submitted("train", "11")
        line = squeue_line("11", "PENDING", reason="Priority", start=start)
        return look(folder, FakeHost(**squeue(line))).evidence

    plain = "jobs with a higher priority wait before it"
    assert waits("2999-11-26T14:20:00") == (
        f"{plain}; Slurm expects it to start on 2999-11-26 at 14:20"
    )
    # none is planned, it is that of an earlier run, or no time at all
    assert {waits(start) for start in ("Unknown", "2001-01-01T00:00:00", "soon")} == {plain}


def test_the_data_phase_is_shown_while_it_runs_then_the_training_that_waits(
    tmp_path: Path,
) -> None:
    run = RunFolder(tmp_path)
    run.submitted("preprocess", "10")
    run.submitted("train", "11")
    waits = squeue_line("11", "PENDING", reason="Dependency")
    host = FakeHost(**squeue(squeue_line("10", "PENDING", reason="Priority"), waits))
    assert look(tmp_path, host).evidence == "jobs with a higher priority wait before it"
    run.started("preprocess", "10")
    attempt = run.attempt(phase="preprocess")
    run.progress(attempt, step=None, text="tokenizing 34 MB of 120 MB")
    status = look(tmp_path)
    assert (status.state, status.phase) == (State.PREPROCESSING, "preprocess")
    assert status.doing == "tokenizing 34 MB of 120 MB"
    run.event("phase_done", phase="preprocess")
    status = look(tmp_path, FakeHost(**squeue(waits)))
    assert (status.state, status.phase) == (State.PENDING, "train")


@pytest.mark.parametrize("reason", ["DependencyNeverSatisfied", "None"])
def test_a_training_whose_data_phase_failed_says_so(tmp_path: Path, reason: str) -> None:
    run = RunFolder(tmp_path)
    run.submitted("preprocess", "10")
    run.submitted("train", "11")
    rows = squeue_line("10", "FAILED") + squeue_line("11", "CANCELLED", reason=reason)
    status = look(tmp_path, FakeHost(**squeue(rows)))
    assert (status.state, status.cause) == (State.STOPPED, Cause.PREPROCESS_FAILED)


def test_shared_data_is_awaited_in_the_job_of_the_other_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.event("shares", phase="preprocess", job_id="5", cluster="slurm", run="other")
    run.submitted("train", "11")
    old = squeue_line("5", "RUNNING", at=time.time() - 9000)
    host = FakeHost(**squeue(old, squeue_line("11", "PENDING", reason="Dependency")))
    status = look(tmp_path, host)
    assert (status.state, status.phase) == (State.PREPROCESSING, "preprocess")


def test_local_runs_are_seen_by_their_process(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, cluster="local")
    here = socket.gethostname()
    run.submitted("train", str(os.getpid()), host=here)
    assert look(tmp_path).state is State.STARTING
    gone = RunFolder(tmp_path / "x", cluster="local")
    gone.submitted("train", "4194304", pid_started=1.0, host=here)
    assert look(tmp_path / "x").state is State.STOPPED


def test_a_local_training_that_waits_for_its_data_is_preprocessing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, cluster="local")
    run.submitted("preprocess", "10")
    run.submitted("train", "11")
    run.started("preprocess", "10")
    run.attempt(phase="preprocess")
    run.event("phase_started", phase="train", job_id="11", restart=0, nodes=["n1"])
    run.beat("train", "11", state="waiting")
    assert look(tmp_path).state is State.PREPROCESSING


def test_a_cancel_is_stopping_until_nothing_runs_any_more(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.training()
    run.event("cancel_requested", by="me", now=False)
    assert look(tmp_path).state is State.STOPPING
    run.beat(ago=500.0)
    assert look(tmp_path, FakeHost(**GONE)).state is State.CANCELLED


def test_foreign_and_broken_folders_are_noted_and_hide_nothing(tmp_path: Path) -> None:
    RunFolder(tmp_path, "good").training()
    (tmp_path / "photos").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "file").write_text("")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "events.jsonl").write_bytes(b'\xff\xfe{"event": "created"}\n[]\n{"event": 5}\n{"ev')
    strange = RunFolder(tmp_path, "strange")
    strange.event("ended", state="EXPLODED")
    reader = StatusReader(tmp_path, SchedulerView(tmp_path, FakeHost()))
    names = {status.run for status in reader.read()}
    assert names == {"good", "broken"}
    assert any(note.startswith("photos:") for note in reader.notes)
    assert any(note.startswith("strange:") for note in reader.notes)


def test_a_run_whose_spec_cannot_be_read_still_shows(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.training()
    run.paths.spec.write_text("{")
    assert look(tmp_path).state is State.TRAINING


@given(st.lists(st.dictionaries(st.sampled_from(["event", "time", "phase", "state"]), st.text())))
def test_any_events_give_a_status_or_a_note(events: list[dict[str, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        with run.paths.events.open("a") as handle:
            handle.writelines(json.dumps(event) + "\n" for event in events)
        reader = StatusReader(Path(folder), SchedulerView(Path(folder), FakeHost(**GONE)))
        assert len(reader.read()) + len(reader.notes) == 1


def test_numbers_that_json_does_not_have_are_left_out(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.progress(run.training(), loss=float("nan"), eta_s="soon")
    json.dumps(look(tmp_path).to_json(), allow_nan=False)


def test_a_run_is_found_by_name_or_folder_and_a_near_name_is_offered(tmp_path: Path) -> None:
    RunFolder(tmp_path, "ru-cpt")
    assert find_run("ru-cpt", tmp_path).name == "ru-cpt"
    assert find_run(str(tmp_path / "ru-cpt")).name == "ru-cpt"
    with pytest.raises(RunError, match="did you mean `ru-cpt`"):
        find_run("ru-cpl", tmp_path)
    for nothing in ("", ".", "..", "/"):
        with pytest.raises(RunError):
            find_run(nothing, tmp_path)


def test_only_an_ended_run_may_be_started_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.training()
    assert supervisor_lives(run.paths)
    with pytest.raises(RunError, match="TRAINING"):
        refuse_living(run.paths)
    run.ended("CANCELLED", "CANCELLED")
    assert not supervisor_lives(run.paths)
    refuse_living(run.paths)


def test_a_run_that_is_done_is_not_resumed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.training()
    run.ended()
    with pytest.raises(RunError, match="nothing to resume"):
        refuse_living(run.paths)
