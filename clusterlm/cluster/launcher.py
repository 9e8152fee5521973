"""submitit, with our text as its submission file, sent once.

`TemplateExecutor` overrides two hooks; everything else (pickle, job folder, requeue) is submitit's.
The callable runs as the batch step itself, not under srun: there scontrol and srun exist, output is
not buffered, and the image needs neither submitit nor Slurm.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import submitit

from clusterlm.cluster.host import Host, LocalHost
from clusterlm.cluster.locks import alone
from clusterlm.cluster.sbatch_once import Sending, lock_of, refuse_void, sbatch_once
from clusterlm.cluster.sent_jobs import sent_at
from clusterlm.errors import SendUnclear, SlurmError
from clusterlm.paths import PRIVATE_DIR, Phase, RunPaths
from clusterlm.render import Launch, render_sbatch
from clusterlm.spec.job import Job
from clusterlm.supervise import environment
from clusterlm.supervise.batch_step import NO_LIMIT
from clusterlm.supervise.owner import Owner, new_key, owner_of, take, token_of
from clusterlm.supervise.supervisor import Supervisor

TEN_YEARS_MIN = 10 * 365 * 24 * 60


@dataclass(frozen=True)
class Submitted:
    """A job that the scheduler, or this machine, has taken."""

    phase: Phase
    job_id: str
    pid_started: float | None = None
    host: str | None = None
    tasks: int = 1
    """Of a job array."""
    submitted: float | None = None
    """When, in unix seconds; a call that was cut off may have sent it long ago."""

    @property
    def after(self) -> str:
        """How a local training names the process that it waits for."""
        return f"{self.job_id}@{self.pid_started}"


class TemplateExecutor(submitit.SlurmExecutor):  # type: ignore[misc]  # submitit has no types
    """submitit's Slurm executor whose submission is ours: our text, sent once."""

    def __init__(self, run: RunPaths, send: Callable[[], str]) -> None:
        super().__init__(folder=run.submitit, max_num_timeout=NO_LIMIT)
        self._send = send

    def _submit_command(self, command: str) -> Any:
        # its own command is part of our text, behind the guard
        return self.job_class(folder=self.folder, job_id=self._send(), tasks=[0])


class CarefulExecutor(submitit.LocalExecutor):  # type: ignore[misc]  # submitit has no types
    """submitit's local executor, whose pickles are looked at before they are loaded."""

    @property
    def _submitit_command_str(self) -> str:
        words = [sys.executable, "-u", "-m", "clusterlm.supervise.start", str(self.folder)]
        return shlex.join(words)


def submit_to_slurm(
    run: RunPaths,
    job: Job,
    phase: Phase,
    dependency: str | None,
    *,
    host: Host | None = None,
    token: str = "",
    tell: Callable[[str], None] = print,
) -> Submitted:
    """Send one phase to sbatch; what was sent stays as `<phase>.sbatch` in the run directory.

    Args:
        run: the run.
        job: its resolved spec.
        phase: what is sent.
        dependency: `afterok:12`.
        host: where Slurm is; default: this machine.
        token: of this send: another call with the same one gives the same job.
        tell: gets a line when sbatch does not answer.

    Raises:
        SlurmError: sbatch refused; its own words are in the text.
        SendUnclear: nobody could say whether the job is in the queue.
    """
    token = token or token_of(new_key(), phase)
    text = render_sbatch(job, run, phase, Launch(token, dependency))

    def send() -> str:
        return sbatch_once(Sending(run, phase, token, text, host or LocalHost(), tell))

    with _private_files(), _environment_of_a_submission(job):
        try:
            submitted = TemplateExecutor(run, send).submit(Supervisor(str(run.root), phase))
        except SendUnclear:
            raise
        except (SlurmError, OSError) as error:
            raise SlurmError(f"sbatch refused the {phase} job: {error}") from error
        run.sbatch(phase).write_text(text)
    tasks = job.encode_tasks if phase == "encode" else 1
    at = sent_at(run, token)
    return Submitted(phase, str(submitted.job_id), tasks=tasks, submitted=at)


def _environment_of_a_submission(job: Job) -> AbstractContextManager[None]:
    passed = environment.for_submission(os.environ, without=job.secrets)
    return environment.replaced(os.environ, passed)


def submit_locally(run: RunPaths, phase: Phase, after: str = "", *, token: str = "") -> Submitted:
    """Start one phase on this machine through submitit's local executor.

    Once for each token: what starts it outlives a killed submit, and notes what it has started.

    In a session of its own and with files as its output: a closed terminal, Ctrl-C, Ctrl-Z or a
    broken pipe of the submitting shell does not reach it.
    """
    with _private_files():
        run.submitit.mkdir(exist_ok=True)
        read_end, write_end = os.pipe()
        argv = [sys.executable, "-m", "clusterlm.cluster.launcher"]
        argv += [str(write_end), str(run.root), phase, after, token or token_of(new_key(), phase)]
        with (run.submitit / "controller.log").open("ab") as log:
            starter = subprocess.Popen(
                argv,
                pass_fds=[write_end],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment.for_submission(os.environ),
            )
        os.close(write_end)
        with os.fdopen(read_end) as answer:
            text = answer.read()
        starter.wait()
    if not text:
        raise SlurmError(
            f"the {phase} phase could not be started; see {run.submitit / 'controller.log'}"
        )
    fields = json.loads(text)
    refuse_void(run, Owner(**fields))
    return Submitted(phase, fields["job_id"], fields["pid_started"], fields["host"])


def _start_here(write_end: int, run_dir: str, phase: Phase, after: str, token: str) -> None:
    run = RunPaths(Path(run_dir))
    with alone(lock_of(run, token)):
        owner = owner_of(run, token) or take(run, token, _start_controller(run, phase, after))
        try:
            # nobody reads it when the submit was killed
            with contextlib.suppress(BrokenPipeError), os.fdopen(write_end, "w") as answer:
                json.dump(asdict(owner), answer)
        finally:
            # not waited for: the controller lives on by itself
            os._exit(0)


def _start_controller(run: RunPaths, phase: Phase, after: str) -> Owner:
    job = Job.model_validate_json(run.spec.read_text())
    executor = CarefulExecutor(folder=run.submitit, max_num_timeout=NO_LIMIT)
    gpus = job.resources.gpus_per_node if phase == "train" else 0
    executor.update_parameters(timeout_min=TEN_YEARS_MIN, gpus_per_node=gpus)
    submitted = executor.submit(Supervisor(str(run.root), phase, after))
    started = psutil.Process(int(submitted.job_id)).create_time()
    return Owner(str(submitted.job_id), started, socket.gethostname())


@contextmanager
def _private_files() -> Iterator[None]:
    """Everything of a run is for its owner alone, the pickles that will be loaded above all."""
    before = os.umask(0o777 & ~PRIVATE_DIR)
    try:
        yield
    finally:
        os.umask(before)


if __name__ == "__main__":
    _start_here(int(sys.argv[1]), sys.argv[2], cast(Phase, sys.argv[3]), *sys.argv[4:])
