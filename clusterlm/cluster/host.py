"""A machine that programs are started on. `Host.run` alone starts them: never a shell string.

One side now (this machine); SSH is the other side of the same seam.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

STOP_GRACE_S = 10.0
"""What a program gets to clean up after Ctrl-C; docker and enroot need about one second."""


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

    def stream(self, argv: Sequence[str], each: Callable[[str], None]) -> int:
        """Run to the end, however long it takes; `each` gets every line of output as it comes.

        What interrupts it (Ctrl-C, an exception in `each`) ends the program and what it started.
        """

    def has(self, program: str) -> bool:
        """Whether `program` is on PATH there."""


class LocalHost:
    """This machine."""

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0) -> Completed:
        try:
            done = subprocess.run(
                list(argv),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                env=_environ(),
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except FileNotFoundError:
            return Completed(tuple(argv), 127, "", f"{argv[0]}: not found")
        except subprocess.TimeoutExpired:
            return Completed(tuple(argv), None, "", f"{argv[0]}: no answer in {timeout_s:.0f} s")
        return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)

    def stream(self, argv: Sequence[str], each: Callable[[str], None]) -> int:
        try:
            # a session of its own: one signal reaches all that the program has started
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=_environ(),
                start_new_session=True,
            )
        except FileNotFoundError:
            each(f"{argv[0]}: not found")
            return 127
        assert child.stdout is not None
        with child:
            try:
                # a progress bar's carriage return ends a line too
                for line in child.stdout:
                    each(line.rstrip("\n"))
                return child.wait()
            except BaseException:
                _end(child)
                raise

    def has(self, program: str) -> bool:
        return shutil.which(program) is not None


def _environ() -> dict[str, str]:
    # C locale: what programs print is read by machines here
    return {**os.environ, "LC_ALL": "C", "SLURM_TIME_FORMAT": "standard"}


def _end(child: subprocess.Popen[str]) -> None:
    """Ctrl-C for a program and its children, and no mercy for one that goes on."""
    try:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGINT)
        # what it still prints is read, or it would wait for a reader
        child.communicate(timeout=STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        _kill(child)
    except BaseException:
        _kill(child)
        raise


def _kill(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
