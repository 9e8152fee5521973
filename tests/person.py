"""Somebody who types clusterlm's commands and reads the run directory; on a cluster or a desk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clusterlm.node.files import read_jsonl
from clusterlm.paths import RunPaths
from tests.bed.waiting import PATIENCE


@dataclass
class Person:
    """Everything of theirs lies below `home`."""

    home: Path

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
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
            timeout=timeout * PATIENCE,
            check=False,
        )

    def starts(self, *words: str) -> subprocess.Popen[str]:
        """Leave a command running; its output goes to one pipe."""
        return subprocess.Popen(
            [sys.executable, "-m", "clusterlm", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.env,
            cwd=self.home,
        )

    def writes(self, job: dict[str, Any]) -> str:
        """Write a job.yaml and give its path."""
        file = self.home / f"{job['name']}.yaml"
        file.write_text(yaml.safe_dump(job))
        return str(file)

    def submits(self, job: dict[str, Any], *words: str) -> dict[str, Any]:
        """Submit a job and return what `--json` says."""
        done = self.types("submit", self.writes(job), "--json", *words)
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
