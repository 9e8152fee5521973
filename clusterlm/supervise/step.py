"""One step: the same rendered script on every node of an attempt, started by srun or directly.

With an image, srun gets the options of `pyxis.options`, or runs the script by `container.sh`.
Without Slurm a step may stand for several nodes: it then starts one copy for each on this machine,
numbers them, shares the GPUs out among them, and ends all when one fails, as srun does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clusterlm.paths import PRIVATE_DIR, Phase, RunPaths, cache_dir
from clusterlm.supervise import environment
from clusterlm.supervise.allocation import LOCAL_GPUS

KILL_AFTER_S = 5.0
"""From SIGTERM to SIGKILL for copies whose sibling has failed."""


@dataclass(frozen=True)
class Inside:
    """How the scripts of a run get into their container; both empty: they run as they are."""

    pyxis: tuple[str, ...] = ()
    """Options of srun."""
    script: Path | None = None
    """Starts the container with a script in it."""

    @classmethod
    def of(cls, run: RunPaths) -> Inside:
        """As it was rendered into the run directory."""
        if run.pyxis_options.exists():
            return cls(pyxis=tuple(run.pyxis_options.read_text().splitlines()))
        return cls(script=run.container_script if run.container_script.exists() else None)


def step_argv(
    script: Path,
    nodes: Sequence[str],
    *,
    is_slurm: bool,
    inside: Inside | None = None,
    passed: Sequence[str] = (),
) -> list[str]:
    """The command that runs `script` once on each of `nodes` (locally: on one of them).

    Args:
        script: rendered script of the phase.
        nodes: names as Slurm knows them.
        is_slurm: by srun.
        inside: what it is run in.
        passed: names of variables that go into a container of pyxis.
    """
    inside = inside or Inside()
    command = ["bash", *([str(inside.script)] if inside.script else []), str(script)]
    if not is_slurm:
        return command
    if inside.pyxis:
        # the image's own bash; with ALL the whole environment of the host would come along
        command = [*inside.pyxis, f"--export={','.join(passed)}", "/bin/bash", str(script)]
    else:
        # what pyxis says is read line by line, and unbuffered lines come in pieces
        command = ["--unbuffered", "--export=ALL", *command]
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
        "--label",
        "--input=none",
        *command,
    ]


def start_step(
    run: RunPaths,
    phase: Phase,
    nodes: Sequence[str],
    log: Path,
    *,
    own: Mapping[str, str],
    is_slurm: bool,
) -> Step:
    """Start a phase's script on `nodes`.

    Args:
        run: the run.
        phase: which script.
        nodes: where, one task each.
        log: gets the output.
        own: variables of the attempt.
        is_slurm: by srun; else as copies on this machine.

    Raises:
        OSError: it cannot be started.
    """
    environ = environment.for_step(os.environ, own)
    inside = Inside.of(run)
    if inside != Inside():
        # what is not there cannot be mounted
        cache_dir().mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
    argv = step_argv(
        run.node_script(phase),
        nodes,
        is_slurm=is_slurm,
        inside=inside,
        passed=environment.for_container(environ),
    )
    copies = [environ] if is_slurm else _of_local_nodes(environ, phase, len(nodes))
    return Step(argv, copies, log)


def _of_local_nodes(
    environ: Mapping[str, str], phase: Phase, num_nodes: int
) -> list[dict[str, str]]:
    """The environment of each node that this machine stands for."""
    copies = [dict(environ) for _ in range(num_nodes)]
    gpus = [g for g in environ.get(LOCAL_GPUS, "").split(",") if g]
    share = len(gpus) // num_nodes
    for number, copy in enumerate(copies):
        if num_nodes > 1:
            copy["CLUSTERLM_NODE_RANK"] = str(number)
        if LOCAL_GPUS in environ:
            own = gpus[number * share : (number + 1) * share] if phase == "train" else []
            copy["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    return copies


class Step:
    """A started step. `end_now` never waits: a task on a dead node does not end."""

    def __init__(self, argv: Sequence[str], environs: Sequence[Mapping[str, str]], log: Path):
        self.has_labels = argv[0] == "srun"
        self._first_failure: int | None = None
        self._ended_others: float | None = None
        with log.open("ab") as out:
            self._copies = [
                subprocess.Popen(
                    list(argv),
                    env=dict(environ),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    # of its own: Ctrl-C in a terminal is not for the training
                    start_new_session=True,
                )
                for environ in environs
            ]

    def poll(self) -> int | None:
        """Exit code, 128 + n for a signal, of the copy that failed first; None while it runs."""
        codes = [copy.poll() for copy in self._copies]
        if self._first_failure is None:
            self._first_failure = next((code for code in codes if code), None)
        if None in codes:
            if self._first_failure is not None:
                self._end_others()
            return None
        code = self._first_failure or 0
        return code if code >= 0 else 128 - code

    def wait(self, timeout_s: float) -> int | None:
        """As `poll`, after waiting for at most `timeout_s`."""
        until = time.monotonic() + timeout_s
        for copy in self._copies:
            with suppress(subprocess.TimeoutExpired):
                copy.wait(max(0.0, until - time.monotonic()))
        return self.poll()

    def end_now(self) -> None:
        """End the client, and with it what it started here; agents end by `abort.json`."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self._signal(number):
                return
            self.wait(2.0)

    def _end_others(self) -> None:
        now = time.monotonic()
        if self._ended_others is None:
            self._ended_others = now
            self._signal(signal.SIGTERM)
        elif now - self._ended_others > KILL_AFTER_S:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> bool:
        """Send it to what is left; whether anything is."""
        left = [copy for copy in self._copies if copy.poll() is None]
        for copy in left:
            with suppress(ProcessLookupError):
                os.killpg(copy.pid, number)
        return bool(left)
