"""The page of a run: curves of what was logged, and nothing where nothing was."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clusterlm.cli import app
from clusterlm.cluster.curves import MOST_POINTS, draw, pictures, thinned
from tests.cluster.run_folders import RunFolder


def test_only_what_was_logged_is_drawn_and_spikes_are_marked() -> None:
    rows = [{"step": n, "loss": 5.0 - n / 10, "lr": 1e-3, "mfu": None} for n in range(20)]
    rows += [{"step": 20, "loss": 9.0, "spike": True}, {"step": 21, "loss": math.nan}]
    drawn = dict(pictures([*rows, {"step": 20, "eval_loss": 4.0}]))
    assert list(drawn) == ["Loss", "Learning rate"]
    loss = ET.fromstring(drawn["Loss"])
    assert len(list(loss.iter("polyline"))) == 2
    assert len(list(loss.iter("circle"))) == 1
    assert "nan" not in drawn["Loss"]
    assert list(pictures([])) == []


def test_a_single_point_and_a_flat_line_can_be_drawn() -> None:
    for line in ([(1.0, 2.0)], [(1.0, 0.0), (2.0, 0.0)]):
        ET.fromstring(draw({"a < b": line}))


def test_thinning_keeps_what_stands_out() -> None:
    line = [(float(n), 1.0) for n in range(10_000)]
    line[5_000] = (5_000.0, 7.0)
    kept = thinned(line)
    assert len(kept) <= MOST_POINTS
    assert (5_000.0, 7.0) in kept
    assert kept == sorted(kept)


def test_the_page_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path))
    run = RunFolder(tmp_path, "night")
    out = tmp_path / "night.html"
    nothing = CliRunner().invoke(app, ["report", "night", "-o", str(out)])
    assert "has logged nothing" in str(nothing.exception)
    rows = [{"step": n, "loss": 5.0 - n / 10} for n in range(20)]
    run.paths.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(app, ["report", "night", "-o", str(out)])
    assert done.exit_code == 0, done.output
    page = out.read_text()
    assert "<svg" in page
    assert "mean loss" in page
    assert "<script" not in page
