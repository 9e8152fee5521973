"""Start a training the way a node does, with the environment that supervisor and agent give."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusterlm.node.extensions import EXTENSIONS, prepare_extensions
from tests.ports import free_port
from tests.train.forked import Forks

ROOT = Path(__file__).parents[2]
TINY = {
    "class": "LlamaForCausalLM",
    "config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


@dataclass
class Run:
    """A run directory and how to train in it."""

    root: Path
    cache: Path
    model: dict[str, Any] = field(default_factory=lambda: {"from_scratch": TINY})
    train: dict[str, Any] = field(default_factory=dict)
    ranks: int = 2
    output: str = ""

    def train_by_torchrun(self, *, attempt: int = 1, resume: str = "") -> list[int]:
        """Exit codes by rank; the output is kept. Every start imports all anew: some 10 s."""
        process = self._start(attempt=attempt, resume=resume)
        self.output, _ = process.communicate(timeout=240)
        return self.codes()

    def stop_midway(
        self,
        forks: Forks,
        ask: Callable[[], None],
        *,
        after: int,
        attempt: int = 1,
        resume: str = "",
    ) -> list[int]:
        """Train, `ask` to stop as soon as step `after` is logged, wait for the end; its codes."""
        with ThreadPoolExecutor(1) as aside:
            training = aside.submit(self.train_forked, forks, attempt=attempt, resume=resume)
            while not training.done() and max(self.losses(), default=0) < after:
                time.sleep(0.05)
            if not training.done():
                ask()
                training.result()
                return self.codes()
        raise AssertionError(f"ended before step {after}: {training.result()} {self.output}")

    def train_forked(
        self, forks: Forks, *, attempt: int = 1, resume: str = "", hang_in: int = 0
    ) -> list[int]:
        """Train to the end by forked ranks that write what they saw; -9 for those killed.

        With `hang_in` all ranks hang in that step, after a backward pass, and are killed there.
        """
        log = self.root / f"output{attempt}"
        own = {name: text for name, text in os.environ.items() if name.startswith("CLUSTERLM_")}
        shared = own | self._prepare(attempt, resume)
        shared |= {
            "CLUSTERLM_TEST_WATCH": "1",
            "CLUSTERLM_TEST_HANG_IN": str(hang_in),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "WORLD_SIZE": str(self.ranks),
            "LOCAL_WORLD_SIZE": str(self.ranks),
        }
        places = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(self.ranks)]
        codes = forks.run(self.root, [shared | place for place in places], log)
        self.output = log.read_text()
        return codes

    def _start(self, *, attempt: int, resume: str) -> subprocess.Popen[str]:
        environment = self._prepare(attempt, resume)
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--max-restarts=0"),
                *(f"--nproc-per-node={self.ranks}", f"--master-port={free_port()}"),
                *(str(Path(__file__).with_name("rank.py")), str(self.root)),
            ],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _prepare(self, attempt: int, resume: str) -> dict[str, str]:
        """Write what a rank reads; the environment that it gets."""
        files = self.root / "attempts" / str(attempt)
        files.mkdir(parents=True, exist_ok=True)
        for pattern in ("code*", "hangs*", "seen*"):
            for left in self.root.glob(pattern):
                left.unlink()
        (self.root / "spec.json").write_text(json.dumps(self._spec()))
        if not (self.root / "LEASE").exists():
            (self.root / "LEASE").write_text(json.dumps({"attempt": attempt}))
        return self._environment(files, attempt, resume)

    def codes(self) -> list[int]:
        return [int(path.read_text()) for path in sorted(self.root.glob("code*"))]

    def rows(self) -> list[dict[str, Any]]:
        path = self.root / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def losses(self) -> dict[int, tuple[float, float]]:
        """Loss and gradient norm of each logged step."""
        return {
            row["step"]: (row["loss"], row["grad_norm"]) for row in self.rows() if "loss" in row
        }

    def seen(self) -> dict[int, list[str]]:
        """Hashes of the blocks that each step of the last attempt saw, of all ranks, sorted."""
        steps: dict[int, list[str]] = {}
        for path in sorted(self.root.glob("seen*")):
            for step, digest in map(json.loads, path.read_text().splitlines()):
                steps.setdefault(step, []).append(digest)
        return {step: sorted(digests) for step, digests in steps.items()}

    def checkpoint(self, step: int) -> Path:
        return self.root / "checkpoints" / f"checkpoint-{step}"

    def _spec(self) -> dict[str, Any]:
        train = {"precision": "fp32", "logging_steps": 1, "learning_rate": 1e-3} | self.train
        # some 190 blocks to validate on: not one by one, with twice as long as the training takes
        train = {"per_device_eval_batch_size": 16} | train
        resources = {"processes_per_node": self.ranks}
        return {"name": "t", "resources": resources, "model": self.model, "train": train}

    def _environment(self, files: Path, attempt: int, resume: str) -> dict[str, str]:
        return {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            # as the agent does: a rank killed while it compiled must not stop all that come after
            EXTENSIONS: str(prepare_extensions()),
            "CLUSTERLM_PHASE": "train",
            "CLUSTERLM_RUN_DIR": str(self.root),
            "CLUSTERLM_ATTEMPT": str(attempt),
            "CLUSTERLM_STOP_FILE": str(files / "stop.json"),
            "CLUSTERLM_PROGRESS_FILE": str(files / "progress.json"),
            "CLUSTERLM_CACHE": str(self.cache),
            "CLUSTERLM_RESUME_FROM": resume,
        }
