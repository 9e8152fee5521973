"""Run directories for tests, as the supervisor and the ranks would have left them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from clusterlm.node.files import append_json, write_json
from clusterlm.paths import AttemptPaths, Phase, RunPaths


class RunFolder:
    """One run that is written step by step; `time` of its events is `at` plus what was slept."""

    def __init__(self, runs_dir: Path, name: str = "run", *, cluster: str = "slurm") -> None:
        self.paths = RunPaths(runs_dir / name)
        self.paths.root.mkdir(parents=True)
        self.cluster = cluster
        self.event("created", run=name, cluster=cluster, version="0")

    def event(self, event: str, *, ago: float = 0.0, **fields: Any) -> None:
        append_json(self.paths.events, {"time": time.time() - ago, "event": event, **fields})

    def submitted(self, phase: Phase = "train", job_id: str = "11", **fields: Any) -> None:
        self.event("submitted", phase=phase, job_id=job_id, cluster=self.cluster, **fields)

    def started(self, phase: Phase = "train", job_id: str = "11") -> None:
        self.event("phase_started", phase=phase, job_id=job_id, restart=0, nodes=["n1", "n2"])
        self.beat(phase, job_id)

    def beat(
        self, phase: Phase = "train", job_id: str = "11", *, ago: float = 0.0, **f: Any
    ) -> None:
        fields = {"time": time.time(), "beat": 1, "phase": phase, "attempt": 1, "job_id": job_id}
        fields |= {"restart": 0, "host": "n1", "state": "running", "nodes": {}}
        write_json(self.paths.supervisor, fields | f)
        moment = time.time() - ago
        os.utime(self.paths.supervisor, (moment, moment))

    def attempt(self, number: int = 1, phase: Phase = "train") -> AttemptPaths:
        attempt = self.paths.attempt(phase, number)
        attempt.make()
        self.event("attempt_started", phase=phase, attempt=number, nodes=["n1", "n2"], ranks=2)
        return attempt

    def rank_exit(self, attempt: AttemptPaths, rank: int = 1, **fields: Any) -> dict[str, Any]:
        base = {"rank": rank, "local_rank": 0, "node_rank": rank, "host": f"n{rank + 1}", "pid": 1}
        base |= {"started": 1.0, "time": time.time(), "code": 3, "signal": None}
        base |= {
            "error": "ValueError: no such key",
            "traceback": None,
            "log": f"logs/rank{rank}.log",
        }
        write_json(attempt.rank_exit(rank), base | fields)
        return base | fields

    def progress(self, attempt: AttemptPaths, **fields: Any) -> None:
        base = {"phase": "train", "step": 40, "total_steps": 300, "loss": 5.1}
        base |= {"tokens_per_s": 5100.0, "eta_s": 120.0, "text": None, "time": time.time()}
        write_json(attempt.progress, base | fields)

    def training(self) -> AttemptPaths:
        """A healthy run in the middle of its training."""
        self.submitted()
        self.started()
        attempt = self.attempt()
        self.progress(attempt)
        return attempt

    def ended(self, state: str = "DONE", cause: str = "DONE", **fields: Any) -> None:
        self.event("ended", phase="train", state=state, cause=cause, **fields)
        self.beat(state="ended")

    def metrics(self, losses: list[float]) -> None:
        rows = [{"step": i + 1, "loss": v, "tokens": 100 * (i + 1)} for i, v in enumerate(losses)]
        self.paths.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


def squeue_line(
    job_id: str,
    state: str,
    *,
    reason: str = "None",
    restarts: int = 0,
    at: float | None = None,
    start: str = "N/A",
) -> str:
    """One line as `squeue_argv` makes squeue print it."""
    from clusterlm.cluster.slurm import _SQUEUE_COLUMNS

    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(at or time.time()))
    values = (job_id, state, str(restarts), moment, "0", "n[1-2]", reason, start)
    return "".join(v.ljust(w) for v, (_, w) in zip(values, _SQUEUE_COLUMNS, strict=True)) + "\n"
