"""Trainings whose memory is watched, as real processes forked from one that has imported all.

A rank spends ten seconds and more on importing torch, transformers and DeepSpeed; forked, twelve
trainings spend that once. The ranks share nothing but code, as in tests/train/forked.py.

    python -m benchmarks.memory_ranks     reads a request a line (JSON), answers with one a line
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from benchmarks.folder import ROOT
from clusterlm.spec.job import Job


class WatchedRanks:
    """The process that forks them; use it in `with`."""

    def __enter__(self) -> Self:
        # large blocks go back to the system when they are freed, so the process tells something
        malloc = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}
        offline = {"HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.memory_ranks"],
            cwd=ROOT,
            env=os.environ | malloc | offline | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin
            self._process.stdin.close()

    def measure(self, folder: Path, cache: Path, job: Job) -> dict[str, int]:
        """Bytes at the peak of rank 0: of torch's allocator, and of the process above its start.

        Args:
            folder: of the run, to be made.
            cache: prepared data.
            job: to be trained.
        """
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(job.model_dump_json(by_alias=True))
        (folder / "LEASE").write_text(json.dumps({"attempt": 1}))
        assert self._process.stdin
        assert self._process.stdout
        environments = _environments(folder, cache, job.resources.ranks_per_node)
        self._process.stdin.write(json.dumps([str(folder), environments]) + "\n")
        self._process.stdin.flush()
        codes = json.loads(self._process.stdout.readline())
        if any(codes):
            raise AssertionError((folder / "output.log").read_text()[-6000:])
        measured: dict[str, int] = json.loads((folder / "memory0.json").read_text())
        return measured


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import deepspeed  # noqa: F401
    import peft  # noqa: F401
    import torch.distributed.fsdp  # noqa: F401
    import transformers.trainer  # noqa: F401

    import clusterlm.train.session  # noqa: F401

    for line in sys.stdin:
        folder, environments = json.loads(line)
        pids = [_fork(Path(folder), environment) for environment in environments]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps(codes), file=answers, flush=True)


def train_and_watch(run_dir: Path) -> None:
    """As one rank: train, and leave the peak beside the run."""
    import torch

    from clusterlm.train.loop import run_training

    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.autograd.profiler.profile(use_kineto=True, profile_memory=True) as profile:
        code = run_training(run_dir)
    assert code == 0
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
    recorded: Any = profile.kineto_results
    found = {"allocator": peak_of(recorded.experimental_event_tree()), "process": grown * 1024}
    (run_dir / f"memory{os.environ['RANK']}.json").write_text(json.dumps(found))


def _fork(run_dir: Path, environment: dict[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with (run_dir / "output.log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.environ.update(environment)
        train_and_watch(run_dir)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _environments(folder: Path, cache: Path, ranks: int) -> list[dict[str, str]]:
    """One a rank, as torchrun and the rank parent set it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "GROUP_RANK": "0",
        "CLUSTERLM_RUN_DIR": str(folder),
        "CLUSTERLM_ATTEMPT": "1",
        "CLUSTERLM_STOP_FILE": str(folder / "stop.json"),
        "CLUSTERLM_PROGRESS_FILE": str(folder / "progress.json"),
        "CLUSTERLM_CACHE": str(cache),
    }
    return [common | {"RANK": str(k), "LOCAL_RANK": str(k)} for k in range(ranks)]


def peak_of(tree: Iterable[Any]) -> int:
    """Most bytes in blocks that were there at once, in the order of time.

    Blocks are known by their address. The profiler sees the threads that torch started alone: what
    gloo's threads free (the gathered weights of ZeRO-3, a fifth of its peak) is never reported, so
    a plain sum of sizes grows with every step. An address that is given out again was freed before.
    """
    live: dict[int, int] = {}
    held = peak = 0
    for event in sorted(_allocations(tree), key=lambda event: int(event.start_time_ns)):
        address, size = event.extra_fields.ptr, event.extra_fields.alloc_size
        held -= live.pop(address, 0)
        if size > 0:
            live[address] = size
            held += size
            peak = max(peak, held)
    return peak


def _allocations(tree: Iterable[Any]) -> Iterator[Any]:
    waiting = list(tree)
    while waiting:
        event = waiting.pop()
        if event.tag.name == "Allocation":
            yield event
        waiting.extend(event.children)


if __name__ == "__main__":
    main()
