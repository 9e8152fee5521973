"""Real processes: what a training writes of itself, on one rank and on two."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.train.conftest import BLOCK_SIZE
from tests.train.forked import Forks
from tests.train.launching import Run

MakeRun = Callable[..., Run]
TRAIN = {"max_steps": 4, "save_steps": 2, "gradient_accumulation": 2}
FIGURES = {
    *("tokens", "unpadded_tokens", "supervised_tokens", "steps_per_s", "tokens_per_s"),
    *("tokens_per_s_per_gpu", "supervised_tokens_per_s", "step_time_p50", "step_time_p95"),
    *("data_wait", "mfu", "hfu", "peak_memory", "peak_allocated", "power_w"),
}


def _evaluations(run: Run) -> dict[int, dict[str, Any]]:
    return {row["step"]: row for row in run.rows() if "eval_loss" in row}


def test_figures_of_two_ranks_and_evaluations_that_do_not_depend_on_them(
    make_run: MakeRun, forks: Forks
) -> None:
    two = make_run("two", ranks=2, train=TRAIN)
    assert two.train_forked(forks) == [0, 0], two.output
    lines = [row for row in two.rows() if "loss" in row]
    for line in lines:
        assert set(line) >= FIGURES
        assert line["tokens_per_s_per_gpu"] == pytest.approx(line["tokens_per_s"] / 2, rel=1e-2)
        assert 0 < line["step_time_p50"] <= line["step_time_p95"]
        assert 0 <= line["data_wait"] <= 1
        # what a CPU could do is unknown, and NVML knows no CPU
        assert (line["mfu"], line["power_w"]) == (None, None)
    # 2 ranks x 2 passes x 1 block
    assert [line["tokens"] for line in lines] == [4 * BLOCK_SIZE * n for n in (1, 2, 3, 4)]
    supervised = [line["supervised_tokens"] for line in lines]
    assert 0 < supervised[0] < 4 * BLOCK_SIZE
    assert supervised == sorted(supervised)
    assert "perplexity" in two.output

    found = _evaluations(two)
    assert sorted(found) == [0, 2, 4]
    assert found[0]["best"]
    progress = json.loads((two.root / "attempts" / "1" / "progress.json").read_text())
    assert progress["perplexity"] == found[4]["perplexity"]
    assert progress["tokens_per_s_per_gpu"] == lines[-1]["tokens_per_s_per_gpu"]

    # goes on from step 2 alone: counts on, evaluates no second time before the first step
    one = make_run("two", ranks=1, train={**TRAIN, "gradient_accumulation": 4})
    resumed = str(one.checkpoint(2))
    assert one.train_forked(forks, attempt=2, resume=resumed) == [0], one.output
    again = [row for row in one.rows() if "loss" in row]
    assert [line["supervised_tokens"] for line in again] == supervised
    assert [line["unpadded_tokens"] for line in again] == [line["tokens"] for line in again]
    assert sorted(_evaluations(one)) == [0, 2, 4]

    alone = make_run("alone", ranks=1, train={**TRAIN, "max_steps": 1})
    assert alone.train_forked(forks) == [0], alone.output
    first = _evaluations(alone)[0]
    for name in ("eval_loss", "token_accuracy", "eval_tokens"):
        assert first[name] == pytest.approx(found[0][name], rel=1e-6)


def test_where_only_the_speed_is_wanted_nothing_is_evaluated_or_saved(
    make_run: MakeRun, forks: Forks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUSTERLM_ONLY_MEASURE", "1")
    run = make_run(ranks=1, train=TRAIN)
    assert run.train_forked(forks) == [0], run.output
    assert _evaluations(run) == {}
    assert len(run.losses()) == 4
    assert not (run.root / "model").exists()
    assert not list((run.root / "checkpoints").glob("*"))
