"""Which job this batch step is, and which nodes it was given."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

LOCAL_NODES = "CLUSTERLM_LOCAL_NODES"
"""Without Slurm: so many nodes does this machine stand for; default: one."""
LOCAL_GPUS = "CLUSTERLM_LOCAL_GPUS"
"""Without Slurm: device numbers, as in 0,1, that these nodes share; absent: as the job asks."""


@dataclass(frozen=True)
class Allocation:
    """A job's identity and its nodes."""

    job_id: str
    restart: int
    """How often the scheduler has started this job again under the same id."""
    hosts: tuple[str, ...]
    is_slurm: bool
    array: str = ""
    """Id of the job array whose task this is; empty for a job of its own."""
    task: int = 0
    """Number in the array, from 0."""

    @property
    def head(self) -> str:
        """Node of the batch step: the first, and the one whose loss ends the job."""
        return self.hosts[0]


def read_allocation(environ: Mapping[str, str]) -> Allocation:
    """From the environment of the batch step."""
    if environ.get("SUBMITIT_EXECUTOR") != "slurm":
        job_id = environ.get("SUBMITIT_LOCAL_JOB_ID", str(os.getpid()))
        return Allocation(job_id, 0, _local_hosts(environ), is_slurm=False)
    array, task = environ.get("SLURM_ARRAY_JOB_ID", ""), environ.get("SLURM_ARRAY_TASK_ID", "0")
    return Allocation(
        # 71_4, which every client takes: the task's own number says nothing to anybody
        f"{array}_{task}" if array else environ["SLURM_JOB_ID"],
        int(environ.get("SLURM_RESTART_COUNT") or 0),
        tuple(_hostnames(environ["SLURM_JOB_NODELIST"])),
        is_slurm=True,
        array=array,
        task=int(task),
    )


def _local_hosts(environ: Mapping[str, str]) -> tuple[str, ...]:
    # desk, desk-2, desk-3: the run's records tell them apart by name
    name = socket.gethostname()
    count = int(environ.get(LOCAL_NODES) or 1)
    return (name, *(f"{name}-{number}" for number in range(2, count + 1)))


def _hostnames(expression: str) -> list[str]:
    # scontrol expands node[1-4,7] by itself, without asking the controller
    argv = ["scontrol", "show", "hostnames", expression]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def job_is_running(job_id: str) -> bool | None:
    """Whether Slurm still counts this job as running; None when it does not answer.

    Asked before every requeue: a requeue revives a job that somebody has cancelled.
    """
    argv = ["squeue", "-h", "-j", job_id, "-o", "%T"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return False if "Invalid job id" in done.stderr else None
    return bool(re.match(r"(RUNNING|SUSPENDED)\b", done.stdout.strip()))


def end_job(job_id: str) -> None:
    """Take a job, or all tasks of an array, out of the queue; a refusal is said and no more."""
    try:
        argv = ["scancel", job_id]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        words = done.stderr.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        words = str(error)
    if words:
        print(f"scancel {job_id}: {words}", flush=True)


def process_lives(pid: int, started: float | None) -> bool:
    """Whether the process is there and is the one that was started then: pids are used again."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return started is None or abs(process.create_time() - started) < 2.0
    except psutil.Error:
        return False
