"""When a step was last seen: what tells a long evaluation from a hang."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from clusterlm.node.files import write_json
from clusterlm.paths import RunPaths
from clusterlm.spec.recovery import Recovery
from clusterlm.supervise.attempt import Attempt


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
