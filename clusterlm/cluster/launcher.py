"""submitit, with our text as its submission file.

`TemplateExecutor` overrides two hooks; everything else (pickle, job folder, requeue) is submitit's.
The callable runs as the batch step itself, not under srun: there scontrol and srun exist, output is
not buffered, and the image needs neither submitit nor Slurm.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import psutil
import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from clusterlm.errors import SlurmError
from clusterlm.paths import PRIVATE_DIR, Phase, RunPaths
from clusterlm.render import Launch, render_sbatch
from clusterlm.spec.job import Job
from clusterlm.supervise import environment
from clusterlm.supervise.supervisor import Supervisor

# submitit counts time-outs and gives up after so many; the rule of progress decides here
NO_LIMIT = 1_000_000
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

    @property
    def after(self) -> str:
        """How a local training names the process that it waits for."""
        return f"{self.job_id}@{self.pid_started}"


class TemplateExecutor(submitit.SlurmExecutor):  # type: ignore[misc]  # submitit has no types
    """submitit's Slurm executor whose submission file is our rendered text."""

    def __init__(self, run: RunPaths, text_of: Callable[[str], str]) -> None:
        super().__init__(folder=run.submitit, max_num_timeout=NO_LIMIT)
        self._text_of = text_of

    @property
    def _submitit_command_str(self) -> str:
        return Launch(folder=str(self.folder)).batch_command

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return self._text_of(command)


class CarefulExecutor(submitit.LocalExecutor):  # type: ignore[misc]  # submitit has no types
    """submitit's local executor, whose pickles are looked at before they are loaded."""

    @property
    def _submitit_command_str(self) -> str:
        return Launch(folder=str(self.folder)).batch_command


def submit_to_slurm(run: RunPaths, job: Job, phase: Phase, dependency: str | None) -> Submitted:
    """Send one phase to sbatch; what was sent stays as `<phase>.sbatch` in the run directory.

    Raises:
        SlurmError: sbatch refused; its own words are in the text.
    """
    sent = ""

    def text_of(command: str) -> str:
        nonlocal sent
        sent = render_sbatch(job, run, phase, Launch(command=command, dependency=dependency))
        return sent

    with _private_files():
        executor = TemplateExecutor(run, text_of)
        try:
            passed = environment.for_submission(os.environ, without=job.secrets)
            with environment.replaced(os.environ, passed):
                submitted = executor.submit(Supervisor(str(run.root), phase))
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            raise SlurmError(f"sbatch refused the {phase} job: {_sbatch_words(error)}") from error
        run.sbatch(phase).write_text(sent)
        tasks = job.encode_tasks if phase == "encode" else 1
        if tasks > 1:
            _give_each_task_its_pickle(submitted.paths.submitted_pickle, tasks)
    return Submitted(phase, str(submitted.job_id), tasks=tasks)


def _give_each_task_its_pickle(pickle: Path, tasks: int) -> None:
    """Link `71_submitted.pkl` as `71_0_submitted.pkl`, ...: there submitit looks in a task.

    It waits for a minute. All start from the same; what each does says its number in the array.
    """
    job_id, _, rest = pickle.name.partition("_")
    for task in range(tasks):
        pickle.with_name(f"{job_id}_{task}_{rest}").symlink_to(pickle.name)


def _sbatch_words(error: Exception) -> str:
    """The lines that sbatch itself wrote, out of submitit's longer text."""
    lines = re.findall(r"sbatch: (?:error: |fatal: )?(.+)", f"{error}\n{error.__cause__ or ''}")
    if any("Invalid job array" in line for line in lines):
        lines.append("data.tasks is more than its arrays may have (MaxArraySize)")
    return "; ".join(dict.fromkeys(lines)) or str(error)


def submit_locally(run: RunPaths, phase: Phase, after: str = "") -> Submitted:
    """Start one phase on this machine through submitit's local executor.

    In a session of its own and with files as its output: a closed terminal, Ctrl-C, Ctrl-Z or a
    broken pipe of the submitting shell does not reach it.
    """
    with _private_files():
        run.submitit.mkdir(exist_ok=True)
        read_end, write_end = os.pipe()
        argv = [sys.executable, "-m", "clusterlm.cluster.launcher"]
        argv += [str(write_end), str(run.root), phase, after]
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
    return Submitted(phase, str(fields["pid"]), fields["started"], socket.gethostname())


def _start_here(write_end: int, run_dir: str, phase: Phase, after: str) -> None:
    run = RunPaths(Path(run_dir))
    job = Job.model_validate_json(run.spec.read_text())
    executor = CarefulExecutor(folder=run.submitit, max_num_timeout=NO_LIMIT)
    gpus = job.resources.gpus_per_node if phase == "train" else 0
    executor.update_parameters(timeout_min=TEN_YEARS_MIN, gpus_per_node=gpus)
    submitted = executor.submit(Supervisor(run_dir, phase, after))
    started = psutil.Process(int(submitted.job_id)).create_time()
    with os.fdopen(write_end, "w") as answer:
        json.dump({"pid": int(submitted.job_id), "started": started}, answer)
    # not waited for: the controller lives on by itself
    os._exit(0)


@contextmanager
def _private_files() -> Iterator[None]:
    """Everything of a run is for its owner alone, the pickles that will be loaded above all."""
    before = os.umask(0o777 & ~PRIVATE_DIR)
    try:
        yield
    finally:
        os.umask(before)


if __name__ == "__main__":
    _start_here(int(sys.argv[1]), sys.argv[2], cast(Phase, sys.argv[3]), sys.argv[4])
