"""Stop request, pace, start clock, metrics, loss guard: the small parts between two steps."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusterlm.errors import TrainError
from clusterlm.spec.job import Job
from clusterlm.train.callbacks import LossGuard, NothingLeft, SaveRhythm
from clusterlm.train.clock import StartClock
from clusterlm.train.metrics import keep_lines_until
from clusterlm.train.rank import Rank, prepare_libraries, threads_per_rank
from clusterlm.train.step_times import StepTimes
from clusterlm.train.stop import INTERVAL_S, StopRequest

# what `prepare_libraries` sets
NAMES = ("OMP_NUM_THREADS", "DS_ACCELERATOR", "TOKENIZERS_PARALLELISM", "TORCH_CPP_LOG_LEVEL")


class Clock:
    """A time that only moves when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_stop_file_is_looked_at_twice_a_second_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, clock = tmp_path / "stop.json", Clock()
    monkeypatch.setenv("CLUSTERLM_STOP_FILE", str(file))
    request = StopRequest(reads_file=True, now=clock)
    assert not request.asked()
    file.touch()
    assert not request.asked()
    clock.now += INTERVAL_S
    assert request.asked()
    file.unlink()
    assert request.asked()
    assert not StopRequest(reads_file=False, now=clock).asked()


def test_sigterm_asks_and_does_not_kill() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        request = StopRequest(reads_file=False)
        request.catch_sigterm()
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.asked()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_evaluation_and_saving_do_not_slow_the_steps() -> None:
    clock = Clock()
    times = StepTimes(now=clock)
    times.start()
    for seconds in (0.5, 0.4, 0.6, 0.5):
        clock.now += seconds
        times.count()
    spent = times.take()
    assert (spent.num_steps, round(spent.seconds, 6)) == (4, 2.0)
    assert (round(spent.p50, 6), round(spent.p95, 6)) == (0.5, 0.6)
    clock.now += 60
    times.resume()
    clock.now += 1.0
    times.count()
    spent = times.take()
    assert (spent.num_steps, spent.seconds, spent.p95) == (1, 1.0, 1.0)


def test_the_start_clock_names_every_part() -> None:
    clock = Clock()
    start = StartClock(0.0, clock)
    for phase, seconds in (("imports", 9.06), ("model", 0.9)):
        clock.now += seconds
        start.mark(phase)
    assert start.line() == "first step after 10.0 s: imports 9.1, model 0.9"


def test_steps_beyond_the_resumed_one_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": 10, "loss": 3.0}, {"step": 20, "eval_loss": 2.9}, {"step": 30, "loss": 2.0}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 40, "lo')
    assert [row["step"] for row in keep_lines_until(path, 20)] == [10, 20]
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20]
    assert keep_lines_until(path, -1) == []
    assert path.read_text() == ""
    assert keep_lines_until(tmp_path / "absent.jsonl", 0) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["loss", "grad_norm", "eval_loss"])
def test_what_is_no_number_is_named_with_its_step(name: str, value: float) -> None:
    state = SimpleNamespace(global_step=7)
    LossGuard().on_log(None, state, None, logs={name: 1.0})
    with pytest.raises(TrainError, match=f"{name} is {value} at step 7"):
        LossGuard().on_log(None, state, None, logs={name: value})


def test_the_last_step_is_saved_and_evaluated_and_never_passed() -> None:
    args = SimpleNamespace(eval_strategy="steps")
    control: Any = SimpleNamespace(should_save=False, should_log=False, should_evaluate=False)
    rhythm = SaveRhythm()
    rhythm.on_step_end(args, SimpleNamespace(global_step=4, max_steps=5), control)
    assert not control.should_save
    rhythm.on_step_end(args, SimpleNamespace(global_step=5, max_steps=5), control)
    assert control.should_save
    assert control.should_log
    assert control.should_evaluate
    with pytest.raises(NothingLeft):
        rhythm.on_train_begin(args, SimpleNamespace(global_step=5, max_steps=5), control)


@pytest.mark.parametrize(
    ("given", "env", "expected"),
    [
        ({}, {}, "ours"),
        # torchrun's own default for several ranks
        ({"OMP_NUM_THREADS": "1"}, {}, "ours"),
        ({"OMP_NUM_THREADS": "3"}, {}, "3"),
        ({"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "1"}, "1"),
    ],
)
def test_threads_share_the_cores_unless_the_user_said_otherwise(
    given: dict[str, str], env: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # set and deleted, so that what the code under test sets is taken back too
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    rank = Rank.read(Path("run"), {"CLUSTERLM_CACHE": "data", "LOCAL_WORLD_SIZE": "2"})
    prepare_libraries(Job.model_validate({"name": "t", "env": env}), rank)
    ours = str(threads_per_rank(2))
    assert os.environ["OMP_NUM_THREADS"] == (ours if expected == "ours" else expected)
    assert os.environ["DS_ACCELERATOR"] == "cpu"


def test_without_prepared_data_the_built_in_trainer_does_not_start() -> None:
    with pytest.raises(TrainError, match="CLUSTERLM_CACHE is not set"):
        Rank.read(Path("run"), {})


def test_a_checkpoint_that_is_not_there_is_named() -> None:
    environ = {"CLUSTERLM_CACHE": "data", "CLUSTERLM_RESUME_FROM": "/not/checkpoint-5"}
    with pytest.raises(TrainError, match="/not/checkpoint-5, is not there"):
        Rank.read(Path("run"), environ)
