from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clusterlm.cluster.outcome import read_outcome
from clusterlm.cluster.scheduler import SchedulerView
from clusterlm.cluster.status import StatusReader
from clusterlm.cluster.table import HEADS, WHERE_KNOWN, one_line, plain_table, rich_table
from clusterlm.cluster.watch import next_command, watch_all, watch_run
from clusterlm.supervise.views import State
from tests.cluster.fake_host import NO_DATABASE, UNREACHABLE, Clock, FakeHost
from tests.cluster.run_folders import RunFolder, squeue_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def reader(runs_dir: Path, host: FakeHost | None = None) -> StatusReader:
    return StatusReader(runs_dir, SchedulerView(runs_dir, host or FakeHost()))


def acting(clock: Clock, *actions: Callable[[], object]) -> Callable[[float], None]:
    """A sleep that does the next action each time, and lets time pass."""
    left = iter(actions)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if action := next(left, None):
            action()

    return sleep


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("screen", [io.StringIO, Terminal])
@pytest.mark.parametrize(("state", "code"), [("DONE", 0), ("STOPPED", 1), ("CANCELLED", 1)])
def test_the_exit_code_is_0_only_for_done(
    tmp_path: Path, state: str, code: int, screen: type[io.StringIO]
) -> None:
    run = RunFolder(tmp_path)
    run.training()
    run.metrics([8.0, 7.0, 6.0, 4.0])
    run.paths.model.mkdir()
    clock, out = Clock(), screen()
    cause = {"DONE": "DONE", "STOPPED": "GPU_MEMORY", "CANCELLED": "CANCELLED"}[state]
    sleep = acting(clock, lambda: run.ended(state, cause))
    got = watch_run(run.paths, reader(tmp_path), out=out, clock=clock, sleep=sleep)
    assert got == code
    text = out.getvalue()
    assert f"run is {state}" in text
    assert "8.000 at the start, 4.000 at the end (-50%)" in text
    assert ("clusterlm chat run" in text) == (state == "DONE")
    assert ("clusterlm why run" in text) == (state == "STOPPED")


@pytest.mark.parametrize("screen", [io.StringIO, Terminal])
def test_ctrl_c_says_that_the_run_goes_on(tmp_path: Path, screen: type[io.StringIO]) -> None:
    run = RunFolder(tmp_path)
    run.training()
    clock, out = Clock(), screen()
    sleep = acting(clock, interrupt)
    assert watch_run(run.paths, reader(tmp_path), out=out, clock=clock, sleep=sleep) == 130
    assert "run goes on" in out.getvalue()
    assert "clusterlm cancel run" in out.getvalue()
    assert watch_all(reader(tmp_path), ["run"], out=out, sleep=acting(clock, interrupt)) == 130


def test_through_a_pipe_a_line_at_each_change_and_every_ten_seconds(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    attempt = run.training()
    clock, out = Clock(), io.StringIO()
    passing = [lambda: None] * 59
    failing = [lambda: run.rank_exit(attempt, 1, error="ValueError: \x1b[2Jbad"), run.ended]
    sleep = acting(clock, *passing, *failing)
    watch_run(run.paths, reader(tmp_path), out=out, clock=clock, sleep=sleep)
    text = out.getvalue()
    assert "\x1b" not in text
    assert text.count("TRAINING  step 40/300  train loss 5.1  5,100 tokens/s  2 min left") == 3
    assert "RETRYING" in text
    assert "rank 1 on n2 failed (exit 3): ValueError: bad" in text


def test_not_knowing_never_ends_the_watch(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.event("submitted", ago=900.0, phase="train", job_id="11", cluster="slurm")
    away = FakeHost(squeue=(1, "", UNREACHABLE), sacct=(1, "", NO_DATABASE))
    clock, out = Clock(), io.StringIO()
    sleep = acting(clock, *[lambda: None] * 200, run.ended)
    assert watch_run(run.paths, reader(tmp_path, away), out=out, clock=clock, sleep=sleep) == 0
    assert "UNKNOWN" in out.getvalue()


def test_several_runs_are_watched_until_the_last_has_ended(tmp_path: Path) -> None:
    old, one, two = (RunFolder(tmp_path, name) for name in ("old", "one", "two"))
    for run in (one, two, old):
        run.training()
    old.ended("STOPPED", "HANG")
    clock, out = Clock(), io.StringIO()
    sleep = acting(clock, one.ended, lambda: None, two.ended)
    assert watch_all(reader(tmp_path), None, out=out, clock=clock, sleep=sleep) == 0
    assert "old" not in out.getvalue()
    assert watch_all(reader(tmp_path), ["old"], out=Terminal(), clock=clock, sleep=sleep) == 1
    nothing = io.StringIO()
    assert watch_all(reader(tmp_path), None, out=nothing, clock=clock, sleep=sleep) == 0
    assert nothing.getvalue().startswith("no run is under way")


def test_runs_on_clusters_are_watched_beside_those_of_this_machine(tmp_path: Path) -> None:
    here, there = RunFolder(tmp_path, "here"), RunFolder(tmp_path / "far", "there")
    here.training()
    there.training()
    clock, out = Clock(), io.StringIO()
    far = reader(tmp_path / "far")
    sleep = acting(clock, here.ended, lambda: None, there.ended)
    own = reader(tmp_path)
    for names in (None, []):
        code = watch_all(own, names, elsewhere=far.glance, out=out, clock=clock, sleep=sleep)
        assert code == 0
    text = out.getvalue()
    assert text.index("here  DONE") < text.index("there  DONE")


def test_tables_hold_every_run_and_no_markup_of_an_error_is_obeyed(tmp_path: Path) -> None:
    from rich.console import Console

    run = RunFolder(tmp_path)
    run.rank_exit(run.training(), 1, error="ValueError: [red]a[/red] [/]\n\x1b[31mb")
    statuses = reader(tmp_path).read()
    lines = plain_table(statuses)
    assert lines[0].split() == " ".join(head for head in HEADS if head not in WHERE_KNOWN).split()
    assert "[red]a[/red] [/]" in lines[1]
    out = io.StringIO()
    Console(file=out, width=300).print(rich_table(statuses))
    assert "[red]a[/red] [/]" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_what_is_measured_stands_in_the_table_and_slow_data_is_told(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    attempt = run.training()
    measured = {"tokens_per_s_per_gpu": 1275.0, "mfu": 0.41, "perplexity": 330.25}
    run.progress(attempt, **measured, data_wait=0.04, eval_loss=5.8)
    status = reader(tmp_path).read()[0]
    heads = [head for head in HEADS if head != "CLUSTER"]
    assert plain_table([status])[0].split() == " ".join(heads).split()
    assert "CLUSTER" in plain_table([replace(status, cluster="far")])[0]
    assert one_line(status).startswith(
        "TRAINING  step 40/300  train loss 5.1  eval loss 5.8 (ppl 330.2)  "
        "5,100 tokens/s, 1,275 per rank  MFU 41%  2 min"
    )
    assert {name: status.to_json()[name] for name in measured} == measured
    assert "data" not in one_line(status)
    assert not status.advice
    run.progress(attempt, **measured, data_wait=0.23)
    status = reader(tmp_path).read()[0]
    assert "waits 23% of the time for data" in one_line(status)
    assert "dataloader_num_workers" in status.advice


def test_the_outcome_names_the_lowest_evaluation_and_spikes(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    rows = [{"step": 0, "eval_loss": 6.0}, {"step": 10, "eval_loss": 2.0}]
    rows += [{"step": 11, "loss": 9.0, "spike": True}, {"step": 20, "eval_loss": 2.5}]
    run.paths.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = read_outcome(run.paths).lines()
    assert "eval loss 2.500 (perplexity 12.18), lowest 2.000 at step 10" in lines
    assert any("1 in the loss" in line for line in lines)


def test_the_outcome_of_a_run_that_logged_nothing_or_nonsense_is_empty(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert read_outcome(run.paths).lines() == []
    run.paths.metrics.write_text('{"loss": NaN}\n{"loss": "x"}\n[]\n{"los')
    assert read_outcome(run.paths).lines() == []


def test_too_few_tokens_or_lines_draw_no_conclusion(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    rows = [{"step": 5, "loss": 5.0}, {"step": 10, "loss": 5.6}]
    rows += [{"step": 10, "eval_loss": 2.0, "eval_tokens": 13}]
    run.paths.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = read_outcome(run.paths).lines()
    assert "mean loss 5.000 at the start, 5.600 at the end (2 lines only: no trend)" in lines
    assert (
        "eval loss 2.000 (perplexity 7.389); of 13 tokens only, which says little: hold back"
        in ("\n".join(lines))
    )
    rows[-1]["eval_tokens"] = 4000
    rows += [{"step": n, "loss": 4.0} for n in range(11, 21)]
    run.paths.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = "\n".join(read_outcome(run.paths).lines())
    assert "only" not in text
    assert "%)" in text


def test_start_and_end_are_means_of_some_lines(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.metrics([9.0, 7.0, *[5.0] * 5, 3.0, 1.0])
    found = read_outcome(run.paths)
    assert (found.first_loss, found.last_loss) == (8.0, 2.0)
    assert (found.steps, found.tokens) == (9, 900)


def test_an_answer_that_is_old_says_so_and_why(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.submitted()
    now, host = Clock(time.time()), FakeHost(squeue=(0, squeue_line("11", "PENDING"), ""))
    one = StatusReader(tmp_path, SchedulerView(tmp_path, host, clock=now), clock=now)
    assert one_line(one.read()[0]) == "PENDING"
    host.answers = {"squeue": (1, "", UNREACHABLE), "sacct": (1, "", NO_DATABASE)}
    now.sleep(30)
    line = one_line(one.read()[0])
    assert line.startswith("PENDING  squeue does not answer: ")
    assert line.endswith("(30 s ago by squeue)")


def test_what_to_do_next_depends_on_the_model(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    status = StatusReader(tmp_path, SchedulerView(tmp_path, FakeHost())).glance_at(run.paths)
    done = replace(status, state=State.DONE)
    assert next_command(run.paths, done) == "clusterlm logs run"
    run.paths.model.mkdir()
    assert next_command(run.paths, done) == "clusterlm chat run"
    run.paths.metrics.write_text('{"step": 1, "eval_loss": 2.5}\n')
    assert next_command(run.paths, done) == "clusterlm eval run"
    (run.paths.model / "chat_template.jinja").touch()
    assert next_command(run.paths, done) == "clusterlm chat run"
