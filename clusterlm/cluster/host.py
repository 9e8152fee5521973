"""A machine that programs are started on. `Host.run` alone starts them: never a shell string.

One side now (this machine); SSH is the other side of the same seam.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Completed:
    """What a program left behind. `code` is None when it did not end in time."""

    argv: tuple[str, ...]
    code: int | None
    out: str
    err: str

    @property
    def is_ok(self) -> bool:
        return self.code == 0


class Host(Protocol):
    """Where sbatch, squeue and the like run."""

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0) -> Completed:
        """Run to the end, or for `timeout_s`. A missing program is code 127, as in a shell."""

    def has(self, program: str) -> bool:
        """Whether `program` is on PATH there."""


class LocalHost:
    """This machine."""

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0) -> Completed:
        # C locale: Slurm and its tools are read by machines here
        env = {**os.environ, "LC_ALL": "C", "SLURM_TIME_FORMAT": "standard"}
        try:
            done = subprocess.run(
                list(argv),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                env=env,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except FileNotFoundError:
            return Completed(tuple(argv), 127, "", f"{argv[0]}: not found")
        except subprocess.TimeoutExpired:
            return Completed(tuple(argv), None, "", f"{argv[0]}: no answer in {timeout_s:.0f} s")
        return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)

    def has(self, program: str) -> bool:
        return shutil.which(program) is not None
