"""Table, words and picture of a scaling measurement, and the job that is sent at each size."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from clusterlm.cluster.scaling import Wish, job_at, read_speed, setting_of, sizes_for
from clusterlm.cluster.scaling_plot import plot
from clusterlm.cluster.scaling_report import Measured, Setting, Size, table, to_json, verdict
from clusterlm.paths import RunPaths
from clusterlm.spec.job import Job

ONE, TWO, FOUR = Size(1, 8), Size(2, 8), Size(4, 8)
GPU = Setting(on_gpu=True, strategy="deepspeed", stage=3)


def _job(**changes: Any) -> Job:
    base: dict[str, Any] = {
        "name": "ru-cpt",
        "cluster": "slurm",
        "resources": {"nodes": 4, "gpus_per_node": 8, "spares": 1},
        "train": {"global_batch_size": 256, "micro_batch_size": 2, "report_to": "wandb"},
        "env": {"A": "b"},
    }
    return Job.model_validate({**base, **changes})


def test_sizes_are_all_combinations_and_by_default_powers_of_two() -> None:
    assert sizes_for(_job(), [], []) == (ONE, TWO, FOUR)
    assert sizes_for(_job(), [2, 1], [1, 8]) == (Size(1, 1), Size(2, 1), ONE, TWO)
    here = _job(cluster="local", resources={"processes_per_node": 1})
    assert sizes_for(here, [1, 2], []) == (Size(1, 1), Size(1, 2))


def test_each_rank_does_the_same_work_at_every_size() -> None:
    for size in (ONE, TWO, Size(1, 1)):
        small = job_at(_job(), size, Wish((size,), steps=20, warmup=5))
        assert small.resources.world_size == size.ranks
        assert small.resources.spares == 0
        # 256 blocks / (2 x 32 ranks)
        assert small.gradient_accumulation == 4
        assert small.global_batch_size == 4 * 2 * size.ranks
        assert (small.train.max_steps, small.train.logging_steps) == (25, 1)
        assert small.train.save_steps > 25
        assert small.train.further_arguments == {"report_to": "none"}
        assert small.env == {"A": "b", "CLUSTERLM_ONLY_MEASURE": "1"}
        assert Job.model_validate_json(small.model_dump_json(by_alias=True)) == small
    assert job_at(_job(), TWO, Wish((TWO,))).name == "ru-cpt-scale-2n8"
    assert len(job_at(_job(name="a" * 64), TWO, Wish((TWO,))).name) == 64


def test_the_speed_is_the_median_behind_the_warm_up(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    rows = [
        {"step": n, "loss": 1.0, "tokens_per_s_per_gpu": speed, "step_time_p50": 0.5, "mfu": None}
        for n, speed in enumerate((1.0, 2.0, 100.0, 110.0, 10.0), start=1)
    ]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_speed(run, ONE, 2, None)
    assert (found.tokens_per_s_per_rank, found.step_s, found.mfu) == (100.0, 0.5, None)
    assert "no speed" in read_speed(RunPaths(tmp_path / "absent"), ONE, 2, None).problem


def test_a_network_that_holds_and_one_that_does_not_are_told_apart() -> None:
    good = [Measured(ONE, 1000.0), Measured(TWO, 930.0), Measured(FOUR, 910.0)]
    assert verdict(good, GPU) == [
        "2 nodes run at 93% per rank: the network holds",
        "4 nodes run at 91% per rank: the network holds",
    ]
    odd = [Measured(ONE, 100.0), Measured(TWO, 345.0)]
    assert "measure again" in verdict(odd, GPU)[0]
    bad = [Measured(ONE, 1000.0, data_wait=0.01), Measured(TWO, 610.0, data_wait=0.4)]
    words = "\n".join(verdict(bad, GPU))
    assert "2 nodes run at 61% per rank: the network takes more than a quarter" in words
    for hint in ("NCCL_IB_HCA", "ZeRO stage", "global batch", "40% of the time"):
        assert hint in words
    on_cpu = "\n".join(verdict([Measured(Size(1, 1), 10.0), Measured(Size(1, 2), 5.0)], _on_cpu()))
    assert "2 ranks run at 50% per rank: the node" in on_cpu
    assert "NCCL" not in on_cpu
    assert "ranks on the CPU" in on_cpu


def test_an_absurd_efficiency_is_called_bad_with_what_it_gains_in_all() -> None:
    on_cpu = [Measured(Size(1, 1), 100.0), Measured(Size(1, 4), 20.0)]
    (first, *rest) = verdict(on_cpu, _on_cpu())
    assert first == (
        "4 ranks run at 20% per rank: BAD, 4 ranks do 0.8 times the work of 1, less than these "
        "alone; do not train at this size: its ranks take each other's cores"
    )
    assert "GPU" not in "".join([first, *rest])
    (first, *_) = verdict([Measured(ONE, 1000.0), Measured(FOUR, 300.0)], GPU)
    assert "BAD, 32 ranks do 1.2 times the work of 8; do not train at this size before" in first
    assert "BAD" not in verdict([Measured(ONE, 1000.0), Measured(TWO, 510.0)], GPU)[0]


def _on_cpu() -> Setting:
    return setting_of(_job(resources={"nodes": 1}, train={"gradient_accumulation": 8}))


def test_a_size_that_failed_is_named_and_the_others_compared() -> None:
    found = [
        Measured(ONE, problem="STOPPED no memory"),
        Measured(TWO, 800.0),
        Measured(FOUR, 760.0),
    ]
    lines = table(found)
    assert "STOPPED no memory" in lines[1]
    assert "95%" in lines[3]
    assert verdict(found, GPU) == ["4 nodes run at 95% per rank: the network holds"]
    assert "one size alone" in verdict(found[:2], GPU)[0]
    told = to_json(found, GPU)
    assert [size["efficiency"] for size in told["sizes"]] == [None, 1.0, 0.95]
    assert told["sizes"][1]["tokens_per_s"] == 800.0 * 16
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_picture_is_an_svg_with_a_bar_for_each_size(count: int) -> None:
    found = [Measured(ONE, 1000.0), Measured(TWO, 930.0), Measured(FOUR, 500.0)][:count]
    root = ET.fromstring(plot("a<b", [*found, Measured(Size(8, 8), problem="x")]))
    bars = [e for e in root.iter() if e.get("class") in ("bar", "low")]
    assert len(bars) == count
    assert [bar.get("class") for bar in bars[2:]] == ["low"] * (count == 3)
