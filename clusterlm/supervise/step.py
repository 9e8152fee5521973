"""One step: the same rendered script on every node of an attempt, started by srun or directly."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def step_argv(script: Path, nodes: Sequence[str], *, is_slurm: bool) -> list[str]:
    """The command that runs `script` once on each of `nodes`."""
    if not is_slurm:
        return ["bash", str(script)]
    return [
        "srun",
        f"--nodes={len(nodes)}",
        f"--ntasks={len(nodes)}",
        "--ntasks-per-node=1",
        f"--nodelist={','.join(nodes)}",
        # beside a step that hangs on a dead node: a new attempt does not wait for its end
        "--overlap",
        # one failed node ends the others, which would wait for it in a collective
        "--kill-on-bad-exit=1",
        "--wait=60",
        # a lost node ends the step's tasks there, not the allocation
        "--no-kill",
        "--unbuffered",
        "--label",
        "--input=none",
        "--export=ALL",
        "bash",
        str(script),
    ]


class Step:
    """A started step. `end_now` never waits: a task on a dead node does not end."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                list(argv),
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # of its own: Ctrl-C in a terminal is not for the training
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Exit code, 128 + n for a signal; None while it runs."""
        code = self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def wait(self, timeout_s: float) -> int | None:
        """As `poll`, after waiting for at most `timeout_s`."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return self.poll()

    def end_now(self) -> None:
        """End the client, and with it what it started here; agents end by `abort.json`."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                return
            self.wait(2.0)
