"""Whole programs, each run in a process of its own: wall time, memory of each process, result."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.folder import BENCH, ROOT

SAMPLE_EVERY_S = 0.05


@dataclass(frozen=True)
class Ran:
    """One run of one program.

    Attributes:
        wall_s: from start to exit, imports and all.
        core_s: processor time of all its processes; noise of other programs is not in it.
        result: what the program printed about itself; `work_s` is without its imports.
        peak_mib: the most memory that each of its processes ever held, largest first.
        total_mib: the most that all held at one moment.
    """

    wall_s: float
    core_s: float
    result: dict[str, Any]
    peak_mib: list[float] = field(default_factory=list)
    total_mib: float = 0.0

    @property
    def work_s(self) -> float:
        return float(self.result["work_s"])


@dataclass(frozen=True)
class Program:
    """A module of `benchmarks.rivals`, and how it is to be run."""

    name: str
    module: str
    env: Mapping[str, str] = field(default_factory=dict)
    words: Sequence[str] = ()

    def run(
        self,
        python: Path,
        corpus: Path,
        tokenizer: Path,
        *,
        processes: int = 2,
        again: bool = False,
        keep: bool = False,
        block_size: int = 4096,
    ) -> Ran:
        """Run it on `processes` cores into a folder of its own, which is removed unless kept."""
        out = self.folder
        if not again:
            shutil.rmtree(out, ignore_errors=True)
        _read_once(corpus)
        argv = [str(python), "-m", f"benchmarks.rivals.{self.module}", *self.words]
        argv += ["--corpus", str(corpus), "--tokenizer", str(tokenizer), "--out", str(out)]
        argv += ["--processes", str(processes), "--block-size", str(block_size)]
        argv += ["--again"] if again else []
        ran = _run(argv, env=self._environment(), cores=processes)
        if not keep:
            shutil.rmtree(out, ignore_errors=True)
        return ran

    @property
    def folder(self) -> Path:
        return BENCH / "out" / self.name.replace(" ", "-")

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "HF_HOME": str(self.folder / "hf"),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "CLUSTERLM_CACHE_DIR": str(self.folder / "cache"),
            **self.env,
        }


def _run(argv: Sequence[str], *, env: Mapping[str, str], cores: int) -> Ran:
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    # dirty pages of the run before are not this run's to write
    os.sync()
    began, used = time.perf_counter(), _core_seconds()
    process = subprocess.Popen(
        argv,
        env=dict(env),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    watch = _Watch(process.pid)
    watch.start()
    out, err = process.communicate()
    wall = time.perf_counter() - began
    watch.stop()
    if process.returncode != 0:
        said = err.decode(errors="replace")[-2000:]
        raise RuntimeError(f"{' '.join(argv)}: exit {process.returncode}\n{said}")
    result = json.loads(out.decode().strip().splitlines()[-1])
    peaks = sorted(watch.peaks.values(), reverse=True)
    return Ran(wall, _core_seconds() - used, result, peaks, max([watch.total, *peaks]))


def _core_seconds() -> float:
    """Processor time of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class _Watch(threading.Thread):
    """Looks at a process and all below it; the kernel itself keeps the peak of each."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[int, float] = {}
        self.total = 0.0
        self._root = psutil.Process(pid)
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(SAMPLE_EVERY_S):
            held = 0.0
            with suppress(psutil.Error):
                for process in [self._root, *self._root.children(recursive=True)]:
                    held += self._look_at(process.pid)
            self.total = max(self.total, held)

    def stop(self) -> None:
        self._done.set()
        self.join()

    def _look_at(self, pid: int) -> float:
        with suppress(OSError, KeyError):
            status = Path(f"/proc/{pid}/status").read_text()
            fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            peak, now = (int(fields[key].split()[0]) / 1024 for key in ("VmHWM", "VmRSS"))
            self.peaks[pid] = max(self.peaks.get(pid, 0), peak)
            return now
        return 0.0


def _read_once(path: Path) -> None:
    """Into the page cache: nobody is timed on the disk."""
    with path.open("rb", buffering=0) as file:
        while file.read(16 << 20):
            pass
