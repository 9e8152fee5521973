"""Ranks as real processes that start in a second: forked from one process that has imported all.

A rank spends ten seconds on importing torch, transformers, DeepSpeed, and two more on what these
make at their first use; a matrix of some fifty trainings would spend its time there. `Forks` keeps
one process that has done it and forks the ranks of every run from it, one run at a time. They share
nothing but code: each has its environment, its process group and its output, and `kill -9` ends
them as it ends any other.

    python -m tests.train.forked     reads a request a line (JSON), answers with one a line
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 400.0
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "DS_ACCELERATOR": "cpu",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}


class Forks:
    """The process that forks; `run` trains once and gives the exit codes by rank."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.train.forked"],
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, run_dir: Path, environments: list[dict[str, str]], output: Path) -> list[int]:
        """One training, a rank for each environment; a rank that is killed gives -9."""
        request = {"run_dir": str(run_dir), "environments": environments, "output": str(output)}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        codes: list[int] = json.loads(self._process.stdout.readline())
        return codes

    def end(self) -> None:
        with self._process:
            assert self._process.stdin
            self._process.stdin.close()


def main() -> None:
    # only answers go out there
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import_all()
    for line in sys.stdin:
        request = json.loads(line)
        pids = [
            _fork(Path(request["run_dir"]), environment, request["output"])
            for environment in request["environments"]
        ]
        codes = _wait(pids, Path(request["run_dir"]))
        print(json.dumps(codes), file=answers, flush=True)


def _import_all() -> None:
    import deepspeed  # noqa: F401
    import peft  # noqa: F401
    import torch.distributed.fsdp  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    import clusterlm.train.session  # noqa: F401
    from clusterlm.spec.job import Job

    Job.model_validate({"name": "t"})
    # transformers 5 compiles a thousand patterns when it first saves a model
    with contextlib.suppress(ImportError):
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        get_checkpoint_conversion_mapping("llama")
    # what all ranks share is not looked through by the collector of each, nor copied for that
    gc.collect()
    gc.freeze()


def _fork(run_dir: Path, environment: dict[str, str], output: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with open(output, "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.environ.update(environment)
        from tests.train.rank import main as train

        code = train(run_dir)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pids: list[int], run_dir: Path) -> list[int]:
    """Exit codes; all are killed as soon as one fails, or when all hang in the middle of a step."""
    codes: dict[int, int] = {}
    end = time.monotonic() + TIMEOUT_S
    while len(codes) < len(pids):
        for pid in set(pids) - set(codes):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        all_hang = all((run_dir / f"hangs{rank}").exists() for rank in range(len(pids)))
        if all_hang or any(codes.values()) or time.monotonic() > end:
            _kill(set(pids) - set(codes))
        time.sleep(0.02)
    return [codes[pid] for pid in pids]


def _kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def forks() -> Iterator[Forks]:
    """For a fixture."""
    one: Any = Forks()
    try:
        yield one
    finally:
        one.end()


if __name__ == "__main__":
    main()
