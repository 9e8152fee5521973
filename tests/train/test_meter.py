"""The figures of a line: sums over the ranks, the slowest rank counts, what is unknown stays so."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from clusterlm.data.blocks import IGNORE_INDEX
from clusterlm.data.pack_fit import fit_documents
from clusterlm.errors import TrainError
from clusterlm.paths import RunPaths
from clusterlm.spec.train import Checkpointing, Train
from clusterlm.train.clock import StartClock
from clusterlm.train.device import PowerMeter, peak_memory
from clusterlm.train.efficiency import Efficiency, efficiency_of, recomputed_share
from clusterlm.train.loader_wait import LoaderWait
from clusterlm.train.meter import UNKNOWN, Reading, Totals, figures, num_supervised
from clusterlm.train.progress import Progress
from clusterlm.train.recorder import Recorder
from clusterlm.train.reporting import start_tracking, wandb_id
from clusterlm.train.spikes import FEWEST, Spikes
from clusterlm.train.step_times import StepTimes, percentile
from clusterlm.train.token_count import TokenCount
from tests.data.tables import open_blocks, table_of, write_shards
from tests.train.test_watching import Clock

UNKNOWN_DEVICE = {"reserved": 1e9, "allocated": UNKNOWN, "power_w": UNKNOWN}


def test_the_slowest_rank_sets_the_pace_and_tokens_are_those_of_all() -> None:
    fast = Reading(9.0, 0.9, 1.0, 0.0, 300, **UNKNOWN_DEVICE)
    slow = Reading(10.0, 1.0, 2.0, 3.0, 500, **UNKNOWN_DEVICE | {"reserved": 2e9})
    known = Efficiency(useful=6.0, hardware=8.0, peak=1000.0)
    line = figures([fast, slow], num_steps=10, tokens=2000, unpadded=1000, efficiency=known)
    assert line["tokens_per_s"] == 200.0
    assert line["tokens_per_s_per_gpu"] == 100.0
    assert line["supervised_tokens_per_s"] == 80.0
    assert (line["step_time_p50"], line["step_time_p95"]) == (1.0, 2.0)
    assert line["steps_per_s"] == 1.0
    assert line["data_wait"] == 0.3
    # padding is computed and of no use
    assert (line["mfu"], line["hfu"]) == (0.3, 0.8)
    assert line["peak_memory"] == 2_000_000_000
    assert line["peak_allocated"] is None
    assert line["power_w"] is None
    json.dumps(line, allow_nan=False)


def test_without_known_flops_there_is_no_mfu() -> None:
    one = Reading(1.0, 1.0, 1.0, 0.0, 1, **UNKNOWN_DEVICE)
    for unknown in (Efficiency(), Efficiency(useful=6.0), Efficiency(peak=1e12)):
        line = figures([one], num_steps=1, tokens=1, unpadded=1, efficiency=unknown)
        assert (line["mfu"], line["hfu"]) == (None, None)


def test_mfu_follows_from_config_mode_and_device() -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    }

    def at(device: str, **train: Any) -> Efficiency:
        return efficiency_of(
            config,
            Train.model_validate(train),
            block_size=4096,
            mean_document=None,
            device=device,
        )

    full, adapter = at("NVIDIA H100 80GB HBM3"), at("NVIDIA H100 80GB HBM3", mode="adapter")
    # 7.5 billion elements of matrices, and attention over 2048 tokens before
    products, attention = 7.505e9, 3 * 4 * 4096 * 2048 * 32
    assert full.useful == pytest.approx(6 * products + attention, rel=1e-3)
    assert adapter.useful == pytest.approx(4 * products + attention, rel=1e-3)
    assert full.mfu(10_000) == pytest.approx(0.488, abs=2e-3)
    checkpointed = at("NVIDIA H100 80GB HBM3", activation_checkpointing=True)
    assert (checkpointed.useful, full.hardware) == (full.useful, full.useful)
    assert 1.25 < (checkpointed.hardware or 0) / (full.useful or 1) < 1.34
    assert at("cpu").mfu(10_000) is None
    unknown = efficiency_of(
        {"model_type": "own"}, Train(), block_size=8, mean_document=None, device="NVIDIA A100 80GB"
    )
    assert unknown.mfu(1.0) is None


def test_recomputed_layers_are_counted() -> None:
    assert recomputed_share(False) == 0.0
    assert recomputed_share(True) == 1.0
    assert recomputed_share(Checkpointing(every_n_layers=4)) == 0.25


def test_totals_go_on_from_the_last_line_and_are_unknown_behind_an_older_version() -> None:
    assert Totals.of_line(None).plus(5, 3.0) == Totals(5, 3)
    line = {"unpadded_tokens": 10, "supervised_tokens": 7}
    assert Totals.of_line(line).plus(5, 3.0) == Totals(15, 10)
    assert Totals.of_line({"loss": 1.0}).plus(5, 3.0) == Totals(None, None)


def test_supervised_tokens_are_labels_that_count() -> None:
    labels = torch.tensor([[7, 8, IGNORE_INDEX, 9]])
    assert int(num_supervised({"labels": labels})) == 2
    weights = torch.tensor([[1.0, 0.0, 1.0, 0.5]])
    assert int(num_supervised({"labels": labels, "loss_weights": weights})) == 1


def test_the_time_of_the_loader_is_counted_and_nothing_else() -> None:
    clock = Clock()

    def slow() -> Any:
        for number in range(3):
            clock.now += 0.2
            yield number

    wait = LoaderWait(now=clock)
    batches = slow()
    # as the trainer does: some batches for each step, the same iterator all along
    for _ in range(3):
        for _batch in wait.over(batches):
            clock.now += 5.0
            break
    assert wait.take() == pytest.approx(0.6)
    assert wait.take() == 0.0


class _Gpu:
    """A GPU that comes to an event `late` seconds after the host has queued it."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.late = clock, 0.0

    def event(self, **_: Any) -> Any:
        reached: list[float] = []

        def record() -> None:
            reached.append(self.clock.now + self.late)

        return SimpleNamespace(
            record=record,
            reached=reached,
            query=lambda: self.clock.now >= reached[0],
            synchronize=lambda: None,
            elapsed_time=lambda other: 1000 * (other.reached[0] - reached[0]),
        )


def test_a_gpu_that_is_still_at_work_waits_for_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    gpu = _Gpu(clock)
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)

    def slow() -> Any:
        while True:
            clock.now += 0.2
            yield 1

    wait = LoaderWait(on_gpu=True, now=clock)
    batches = wait.over(slow())
    gpu.late = 1.0
    next(batches)
    assert wait.take() == 0.0
    gpu.late = 0.1
    next(batches)
    assert wait.take() == pytest.approx(0.2)


def test_steps_are_measured_where_the_gpu_comes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    gpu = _Gpu(clock)
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    times = StepTimes(on_gpu=True, now=clock)
    times.start()
    # the host queues two steps in no time; the GPU takes 3 s and 5 s
    for late in (3.0, 8.0):
        gpu.late = late
        times.count()
    spent = times.take()
    assert (spent.p50, spent.p95) == (3.0, 5.0)


def test_power_is_energy_over_time() -> None:
    clock, energy = Clock(), [0]
    meter = PowerMeter(lambda: energy[0], now=clock)
    clock.now, energy[0] = 10.0, 4_000_000
    assert meter.take() == 400.0
    assert PowerMeter(None).take() is None

    def broken() -> int:
        raise OSError("no permission")

    assert PowerMeter(broken).take() is None


def test_memory_of_a_process_on_the_cpu_is_its_peak() -> None:
    taken, allocated = peak_memory(on_gpu=False)
    assert taken > 50 * 2**20
    assert allocated is None


def test_padding_is_not_counted_as_tokens(tmp_path: Path) -> None:
    table = table_of([5, 9, 3, 12, 16, 7, 4, 11] * 4)
    total = int(table.lengths.sum())
    shards = write_shards(tmp_path, list(range(total)), [])
    plan = fit_documents(table.starts, table.lengths, 16)
    blocks = open_blocks(tmp_path, plan, shards, 16, pad_id=0)
    count = TokenCount(blocks, seed=1, blocks_per_step=3, has_padding=True)
    steps_per_epoch = -(-len(blocks) // 3)
    assert count.unpadded_between(0, steps_per_epoch) == total
    assert count.tokens_at(steps_per_epoch) == len(blocks) * 16 > total
    middle = count.unpadded_between(0, 2) + count.unpadded_between(2, 2 * steps_per_epoch)
    assert middle == 2 * total
    seen = [block for step in range(steps_per_epoch) for block in count.blocks_of(step + 1)]
    assert sorted(seen) == list(range(len(blocks)))


def test_a_rise_out_of_the_usual_is_a_spike_and_noise_is_none() -> None:
    draw = np.random.default_rng(0)
    losses = [4.0 - 0.01 * n + 0.05 * float(draw.standard_normal()) for n in range(200)]
    calm = Spikes()
    assert not any(calm.is_one(loss) for loss in losses)
    assert calm.is_one(losses[-1] + 1.0)
    # one spike does not hide the next
    assert calm.is_one(losses[-1] + 1.0)
    few = Spikes(losses[: FEWEST - 2])
    assert not few.is_one(50.0)


def test_percentiles_are_values_that_were_seen() -> None:
    assert percentile([], 0.5) == 0.0
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([float(n) for n in range(1, 101)], 0.95) == 95.0


def test_the_recorder_marks_spikes_and_the_lowest_evaluation(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    recorder = Recorder(file, Progress(speaks=False), StartClock(0.0, Clock()))
    recorder.go_on_from([{"step": n, "loss": 3.0, "tokens": 5} for n in range(10)])
    control = SimpleNamespace(should_save=False)

    def log(step: int, **logs: Any) -> None:
        recorder.on_log(None, SimpleNamespace(global_step=step, max_steps=20), control, logs=logs)

    log(11, loss=3.01, tokens=7)
    log(11, eval_loss=2.5, eval_perplexity=12.2, eval_token_accuracy=0.4, eval_runtime=1.0)
    log(12, loss=9.0, tokens=8)
    log(12, eval_loss=2.6)
    log(13, eval_loss=2.4)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row.get("spike", False) for row in rows if "loss" in row] == [False, True]
    found = [row for row in rows if "eval_loss" in row]
    assert [row.get("best", False) for row in found] == [True, False, True]
    assert (found[0]["perplexity"], found[0]["token_accuracy"], found[0]["tokens"]) == (
        12.2,
        0.4,
        7,
    )
    assert "eval_runtime" not in found[0]


def test_attempts_of_a_run_are_one_run_in_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(__spec__=object()))
    run = RunPaths(tmp_path / "night")
    run.root.mkdir()
    run.events.write_text('{"time": 1.0, "event": "submitted"}\n')
    environ: dict[str, str] = {"WANDB_API_KEY": "x"}
    notes = start_tracking("wandb", run, "ru-cpt", environ)
    assert environ["WANDB_PROJECT"] == "ru-cpt"
    assert environ["WANDB_RESUME"] == "allow"
    assert environ["WANDB_RUN_ID"] == wandb_id(run)
    assert environ["WANDB_RUN_ID"].startswith("night-")
    assert "WANDB_MODE: offline" in notes[0]
    assert len(notes) == 1
    own = {"WANDB_PROJECT": "mine", "WANDB_MODE": "offline", "WANDB_RUN_ID": "abc"}
    assert start_tracking(["wandb"], run, "ru-cpt", own) == []
    assert (own["WANDB_PROJECT"], own["WANDB_RUN_ID"]) == ("mine", "abc")
    run.events.write_text('{"time": 2.0, "event": "submitted"}\n')
    assert wandb_id(run) != environ["WANDB_RUN_ID"]


def test_a_missing_tracker_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="wandb is not installed here; add wandb to image.pip"):
        start_tracking("wandb", RunPaths(tmp_path), "t", {})
    assert start_tracking(None, RunPaths(tmp_path), "t", {}) == []
    assert start_tracking("none", RunPaths(tmp_path), "t", {}) == []
