"""Real agents, rank parents and torchruns over tiny scripts; every process of theirs is found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterlm.node.files import read_json, write_json
from clusterlm.node.records import ExitRecord, read_exits
from tests.bed.waiting import PATIENCE
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


def wait_for(condition: Callable[[], Any], seconds: float, what: str = "it") -> Any:
    deadline = time.monotonic() + seconds * PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(0.02)
    return found


class Node:
    """One node of an attempt, as the rendered script starts it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "run" / "attempts" / "1"
        self.root.mkdir(parents=True)
        self.scripts = root
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "CLUSTERLM"))},
            "PYTHONPATH": str(ROOT),
            "CLUSTERLM_ATTEMPT": "1",
            "CLUSTERLM_ATTEMPT_DIR": str(self.root),
            "CLUSTERLM_RUN_DIR": str(root / "run"),
            "CLUSTERLM_STOP_FILE": str(self.root / "stop.json"),
            "OMP_NUM_THREADS": "1",
        }
        self.agent: subprocess.Popen[bytes]

    def script(self, text: str) -> list[str]:
        """A Python program: argv to run it."""
        path = self.scripts / "script.py"
        path.write_text("import os, signal, subprocess, sys, time\n" + textwrap.dedent(text))
        return [sys.executable, str(path)]

    def start(self, command: list[str], *, ranks: int = 1, **env: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "clusterlm.node.agent", "--ranks-per-node", str(ranks), "--"]
        with (self.scripts / "step.log").open("ab") as log:
            self.agent = subprocess.Popen(
                [*argv, *command], env={**self.env, **env}, stdout=log, stderr=log
            )
        return self.agent

    def start_rank(self, text: str, **env: str) -> subprocess.Popen[bytes]:
        """As the preprocessing does: agent -> rank parent -> script."""
        rank = [sys.executable, "-m", "clusterlm.node.rank", "--"]
        return self.start([*rank, *self.script(text)], **env)

    def start_torchrun(
        self, text: str, *, ranks: int = 2, signals: str | None = None, **env: str
    ) -> subprocess.Popen[bytes]:
        """As the training does: agent -> torchrun -> rank parents -> script.

        `signals` goes before what the agent asks of torchrun, as with a torch that knows no better.
        """
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1"]
        torchrun += ["--node-rank", "0", "--nproc-per-node", str(ranks), "--max-restarts", "0"]
        torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
        torchrun += ["--signals-to-handle", signals] if signals else []
        torchrun += ["--module", "clusterlm.node.rank", "--"]
        return self.start([*torchrun, *self.script(text)], ranks=ranks, **env)

    def pids(self) -> dict[int, str]:
        """Every living process that has this attempt in its environment: pid -> command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                mark = f"CLUSTERLM_ATTEMPT_DIR={self.root}\0".encode()
                is_ours = mark in (entry / "environ").read_bytes()
                is_dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if is_ours and not is_dead:
                found[int(entry.name)] = line
        return found

    def signal_all(self, signum: int) -> None:
        """As slurmstepd does: to every process of the step."""
        for pid in self.pids():
            os.kill(pid, signum)

    def rank_start(self, rank: int, seconds: float = 20) -> dict[str, Any]:
        """`heartbeats/rank<k>.json`, once its script has said that it runs."""
        path = self.root / "heartbeats" / f"rank{rank}.json"
        wait_for(lambda: "up" in self.log(f"rank{rank}").split("\n"), seconds, f"rank {rank}")
        return wait_for(lambda: read_json(path), 2)

    def beat(self) -> dict[str, Any] | None:
        return read_json(self.root / "heartbeats" / "node0.json")

    def log(self, name: str) -> str:
        path = self.root / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def said(self) -> str:
        return (self.scripts / "step.log").read_text()

    def exit(self, rank: int, seconds: float = 10) -> ExitRecord:
        path = self.root / "exits" / f"rank{rank}.json"
        return wait_for(lambda: ExitRecord.read(path), seconds, f"record of rank {rank}")

    def exits(self) -> list[ExitRecord]:
        return read_exits(self.root)

    def write_stop(self, reason: str = "cancel") -> None:
        write_json(self.root / "stop.json", {"reason": reason, "by": "test", "time": time.time()})

    def write_abort(self) -> None:
        write_json(self.root / "abort.json", {"reason": "test", "time": time.time()})

    def end(self) -> None:
        for _ in range(50):
            pids = self.pids()
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if not pids:
                break
            time.sleep(0.05)
        if hasattr(self, "agent"):
            self.agent.wait(10)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    one = Node(tmp_path)
    yield one
    one.end()
