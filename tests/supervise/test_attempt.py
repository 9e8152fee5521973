"""What is seen of an attempt: a long evaluation is no hang, and a step ends with its nodes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from clusterlm.node.files import write_json
from clusterlm.paths import RunPaths
from clusterlm.spec.recovery import Recovery
from clusterlm.supervise.attempt import END_LAG_S, Attempt


def test_an_evaluation_that_goes_on_is_no_hang(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path).attempt("train", 1)
    paths.make()
    step: Any = SimpleNamespace(poll=lambda: None, has_labels=False)
    attempt = Attempt(paths, ["n1"], 1, Recovery(), step, started=0.0)

    def age(now: float, **progress: Any) -> float | None:
        write_json(paths.progress, progress)
        return attempt.view(now).step_s_ago

    assert age(10.0, step=0) == 0.0
    assert age(500.0, step=0) == 490.0
    assert age(600.0, step=0, evaluated=1) == 0.0
    assert age(700.0, step=0, evaluated=1) == 100.0
    assert age(900.0, step=0, evaluated=2) == 0.0
    assert age(910.0, step=0, evaluated=None) == 0.0
    # the usual step is that behind the evaluation
    assert age(930.0, step=1) == 0.0
    assert attempt.view(930.0).usual_step_s == 20.0


def test_a_step_that_is_over_on_every_node_has_ended_whatever_its_client_says(
    tmp_path: Path,
) -> None:
    paths = RunPaths(tmp_path).attempt("train", 1)
    paths.make()
    step: Any = SimpleNamespace(poll=lambda: None, has_labels=False)
    attempt = Attempt(paths, ["n1", "n2"], 2, Recovery(), step, started=0.0)

    def beat(node: int, state: str, code: int | None = None) -> None:
        fields = {"node_rank": node, "host": f"n{node}", "pid": 1, "beat": 1, "time": 1.0}
        write_json(
            paths.heartbeats / f"node{node}.json", {**fields, "state": state, "exit_code": code}
        )

    beat(0, "exited", 0)
    assert attempt.view(100.0).step_code is None
    beat(1, "running")
    assert attempt.view(200.0).step_code is None
    beat(1, "exited", 85)
    assert attempt.view(210.0).step_code is None
    assert attempt.view(210.0 + END_LAG_S).step_code == 85
