"""Real processes: two ranks on the CPU, stopped in both ways, resumed, compared.

The straight training is torchrun's; what is stopped and resumed is forked, and must be its equal.
What a checkpoint, a lease and a loss that is no number do to a training.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable

import pytest

from clusterlm.node.codes import EXIT_FENCED, EXIT_RESUME
from clusterlm.node.seal import newest_verified, verify
from tests.train.forked import Forks
from tests.train.launching import Run

MakeRun = Callable[..., Run]
STEPS = 240
# 2 ranks x 2 blocks x 2 passes = 8 blocks a step: an epoch of 555 blocks ends at step 70, so the
# second stop falls behind the first epoch
LONG = {
    "max_steps": STEPS,
    "micro_batch_size": 2,
    "gradient_accumulation": 2,
    "save_steps": 1000,
    "warmup": 0.1,
}


def newest(run: Run) -> str:
    found = newest_verified(run.root / "checkpoints").newest
    assert found is not None
    return str(found)


@pytest.fixture
def straight(make_run: MakeRun) -> Run:
    run = make_run("straight", train=LONG)
    assert run.train_by_torchrun() == [0, 0], run.output
    return run


def test_stopped_and_resumed_training_has_the_losses_of_a_straight_one(
    make_run: MakeRun, straight: Run, forks: Forks
) -> None:
    run = make_run("stopped", train=LONG)

    stop_file = run.root / "attempts" / "1" / "stop.json"
    codes = run.stop_midway(forks, lambda: stop_file.write_text("{}"), after=10)
    assert codes == [EXIT_RESUME, EXIT_RESUME], run.output
    first = newest(run)

    def terminate_rank_1() -> None:
        os.kill(int((run.root / "pid1").read_text()), signal.SIGTERM)

    after = max(70, *run.losses()) + 1
    codes = run.stop_midway(forks, terminate_rank_1, after=after, attempt=2, resume=first)
    assert codes == [EXIT_RESUME, EXIT_RESUME], run.output
    second = newest(run)
    assert second != first

    assert run.train_forked(forks, attempt=3, resume=second) == [0, 0], run.output
    steps = [row["step"] for row in run.rows() if "loss" in row]
    assert steps == list(range(1, STEPS + 1))
    assert run.losses() == straight.losses()

    # what remains when the last attempt died after its last checkpoint: no step, only the model
    shutil.rmtree(run.root / "model")
    run.ranks = 1
    assert run.train_forked(forks, attempt=4, resume=str(run.checkpoint(STEPS))) == [0], run.output
    assert (run.root / "model" / "model.safetensors").is_file()
    assert run.losses() == straight.losses()


def test_checkpoints_are_sealed_and_only_the_newest_are_kept(
    make_run: MakeRun, forks: Forks
) -> None:
    run = make_run(ranks=1, train={"max_steps": 7, "save_steps": 2, "logging_steps": 4})
    half_written = run.checkpoint(6) / "left-by-an-attempt-that-was-killed.bin"
    half_written.parent.mkdir(parents=True)
    half_written.touch()

    assert run.train_forked(forks) == [0], run.output
    kept = sorted((run.root / "checkpoints").iterdir())
    assert [folder.name for folder in kept] == ["checkpoint-6", "checkpoint-7"]
    assert [verify(folder) for folder in kept] == [None, None]
    assert not half_written.exists()
    # a loss is looked at before each save, whatever logging_steps says
    assert sorted(run.losses()) == [1, 2, 4, 6, 7]
    assert [row["step"] for row in run.rows() if "eval_loss" in row] == [0, 2, 4, 6, 7]
    assert run.rows()[-1]["tokens"] == 7 * 32
    assert "first step after" in run.output
    progress = json.loads((run.root / "attempts" / "1" / "progress.json").read_text())
    assert (progress["step"], progress["total_steps"], progress["text"]) == (7, 7, "done")


def test_an_older_attempt_writes_nothing(make_run: MakeRun) -> None:
    run = make_run(train={"max_steps": 3, "save_steps": 1})
    run.root.mkdir()
    (run.root / "LEASE").write_text(json.dumps({"attempt": 2, "job_id": "7", "time": 0.0}))

    assert run.train_by_torchrun(attempt=1) == [EXIT_FENCED, EXIT_FENCED], run.output
    assert list((run.root / "checkpoints").iterdir()) == []
    assert not (run.root / "model").exists()


def test_a_loss_that_is_no_number_ends_the_training_in_words(
    make_run: MakeRun, forks: Forks
) -> None:
    run = make_run(ranks=1, train={"max_steps": 9, "learning_rate": 1e30, "max_grad_norm": 0})

    assert run.train_forked(forks) == [2]
    assert "loss is nan at step 2" in run.output
    assert not (run.root / "model").exists()
    assert list((run.root / "checkpoints").iterdir()) == []
