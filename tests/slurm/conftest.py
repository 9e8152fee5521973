"""A user in front of the test bed: types clusterlm's commands and reads the run directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterlm.node.files import read_jsonl
from clusterlm.paths import RunPaths
from tests.bed.slurm import SlurmBed

SCRIPTS = Path(__file__).parent / "scripts"


@dataclass
class User:
    """Somebody at a login node."""

    bed: SlurmBed
    home: Path

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            **self.bed.env(),
            "CLUSTERLM_RUNS_DIR": str(self.home / "runs"),
            "CLUSTERLM_CACHE_DIR": str(self.home / "cache"),
            "HF_HUB_OFFLINE": "1",
        }

    def types(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "clusterlm", *words],
            capture_output=True,
            text=True,
            env=self.env,
            cwd=self.home,
            timeout=timeout,
            check=False,
        )

    def starts(self, *words: str) -> subprocess.Popen[str]:
        """Leave a command running; its output goes to the pipe."""
        return subprocess.Popen(
            [sys.executable, "-m", "clusterlm", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.env,
            cwd=self.home,
        )

    def submits(self, job: dict[str, Any], *words: str) -> dict[str, Any]:
        """Submit a job and return what `--json` says."""
        file = self.home / f"{job['name']}.yaml"
        file.write_text(yaml.safe_dump(job))
        done = self.types("submit", str(file), "--json", *words)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def run(self, name: str) -> RunPaths:
        return RunPaths(self.home / "runs" / name)

    def status(self, name: str) -> dict[str, Any]:
        """The row of one run in `status --json`."""
        done = self.types("status", name, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout)[0])

    def events(self, name: str, kind: str | None = None) -> list[dict[str, Any]]:
        rows = read_jsonl(self.run(name).events)[0]
        return [e for e in rows if kind in (None, e["event"])]

    def wait_for_event(
        self, name: str, kind: str, *, count: int = 1, timeout: float = 60
    ) -> dict[str, Any]:
        """The `count`-th event of a kind."""
        wait_until(
            lambda: len(self.events(name, kind)) >= count, timeout, f"{kind} of {name}", self
        )
        return self.events(name, kind)[count - 1]

    def wait_for_end(self, name: str, timeout: float = 120) -> dict[str, Any]:
        return self.wait_for_event(name, "ended", timeout=timeout)

    def wait_for_step(self, name: str, step: int, *, rank: int = 0, timeout: float = 60) -> None:
        """Wait until `counting.py` has come so far."""
        file = self.run(name).root / f"steps-{rank}.txt"

        def there() -> bool:
            lines = file.read_text().split() if file.exists() else []
            return any(int(s) >= step for s in lines[1::2])

        wait_until(there, timeout, f"step {step} of {name}", self)


def wait_until(
    is_so: Callable[[], bool], timeout: float, what: str, user: User | None = None
) -> None:
    """Poll; on failure say what was waited for and what the scheduler shows."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if is_so():
            return
        time.sleep(0.2)
    queue = user.bed.run(["squeue"]).stdout if user else ""
    pytest.fail(f"waited {timeout:.0f} s for: {what}\n{queue}")


@pytest.fixture
def user(slurm: SlurmBed, tmp_path: Path) -> User:
    return User(slurm, tmp_path)


def counting(name: str, steps: int, *words: str, **resources: Any) -> dict[str, Any]:
    """A job that runs `counting.py` on two nodes."""
    return {
        "name": name,
        "cluster": "slurm",
        "resources": {"nodes": 2, "time": "10m", **resources},
        "train": {"command": [str(SCRIPTS / "counting.py"), str(steps), *words]},
        "recovery": {"stop_grace": "30s", "heartbeat_timeout": "12s"},
    }
