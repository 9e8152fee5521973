"""A small job that looks at one or two nodes: sent, waited for, read from its log.

Whoever waits may be interrupted or lose patience; the job is then taken back, and what is known
without it is told. Its answers come as lines of its log, so one folder that the first node sees
is enough.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterlm import __version__
from clusterlm.cluster.doctor.examine import Asked, gpu_options, options_of
from clusterlm.cluster.doctor.folders import clock_ahead_s, marked
from clusterlm.cluster.doctor.node_answers import (
    Clocks,
    NodeAnswers,
    all_reduce_of,
    folders_of,
    nodes_of,
    parse_answers,
)
from clusterlm.cluster.host import Host
from clusterlm.cluster.interrupts import ends_like_ctrl_c
from clusterlm.cluster.log_text import readable
from clusterlm.cluster.slurm import ask_sacct, ask_squeue, last_words, scancel
from clusterlm.errors import SlurmError, SlurmUnreachable
from clusterlm.node import interface, look_around
from clusterlm.node.files import write_atomically
from clusterlm.paths import PRIVATE_DIR, runs_dir
from clusterlm.render import render_text
from clusterlm.spec.cluster_defaults import defaults_of
from clusterlm.spec.probe import NodesTest, Probe
from clusterlm.spec.units import slurm_time, spoken
from clusterlm.supervise import environment
from clusterlm.supervise.slurm_states import JobRow, Life

FOLDER = ".doctor"
TIME_S = 300
LOOK_EVERY_S = 1.0
ASK_EVERY_S = 5.0
SEEN_WITHIN_S = 20.0
"""So long a shared folder may hide what an ended job has written."""
NOISE_LINES = 4
_PYTHONS = ("python3.13", "python3.12", "python3.11", "python3.10", "python3")


@dataclass(frozen=True)
class Waiting:
    """How long, and what passes the time."""

    seconds: float
    with_test: bool
    tell: Callable[[str], None]
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time


@dataclass(frozen=True)
class Came:
    """What came of the job."""

    answers: NodeAnswers
    clocks: Clocks
    trouble: str = ""
    lost: str | None = None
    """Folder in which its log never appeared: the first node sees another, or none."""


def look_at_nodes(probe: Probe, asked: Asked, host: Host, waiting: Waiting) -> Probe:
    """The probe, with what nodes say; without it where no node came in time, and a note why."""
    own = (*asked.all_folders[:3], *asked.folders)
    folder = runs_dir() / FOLDER / uuid.uuid4().hex[:12]
    try:
        folder.mkdir(parents=True, mode=PRIVATE_DIR)
        with ends_like_ctrl_c(), marked(own, asked.all_folders) as request:
            came = _run(probe, asked, host, waiting, folder, request)
    except (SlurmError, OSError) as error:
        return _noted(probe, [f"nodes: {error}"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return with_answers(probe, came, with_test=waiting.with_test)


def with_answers(probe: Probe, came: Came, *, with_test: bool) -> Probe:
    """Fold in what came. Pure."""
    answers = came.answers
    nodes = nodes_of(answers, came.clocks)
    folders, notes = folders_of(probe.folders, answers)
    if came.lost:
        unseen = {"visible": False}
        folders = tuple(f.model_copy(update=unseen) if f.path == came.lost else f for f in folders)
    skews = [node.clock_skew_s for node in nodes if node.clock_skew_s is not None]
    first = nodes[0] if nodes else None
    test = all_reduce_of(answers) if with_test else None
    if with_test and test is None:
        test = NodesTest(ok=False, text=came.trouble or "it did not begin")
    if came.trouble:
        notes.append(f"nodes: {came.trouble}")
        notes += [f"nodes: {line}" for line in answers.noise[-NOISE_LINES:]]
    fields = {
        "nodes": nodes,
        "nodes_time": came.clocks.seen if nodes else None,
        "folders": folders,
        "clock_skew_s": max(skews, key=abs) if skews else None,
        "python": first.python if first else None,
        "enroot": first.enroot if first else None,
        "apptainer": first.apptainer if first else None,
        "nodes_test": test,
    }
    return _noted(probe.model_copy(update=fields), notes)


def _noted(probe: Probe, notes: Sequence[str]) -> Probe:
    return probe.model_copy(update={"notes": (*probe.notes, *notes)})


def num_nodes(probe: Probe, asked: Asked) -> int:
    """Two where the partition has and allows them."""
    chosen = probe.partition(asked.resources.partition)
    up = chosen.nodes_up if chosen and chosen.nodes_up is not None else 2
    return 1 if up < 2 or (chosen and chosen.max_nodes == 1) else 2


def program() -> str:
    """What nodes run, as one text: both files, without the line by which one finds the other."""
    own = inspect.getsource(look_around)
    needed = inspect.getsource(interface).replace("from __future__ import annotations\n", "")
    wanted = "from clusterlm.node.interface import interface_towards\n"
    assert wanted in own
    return own.replace(wanted, needed.partition('"""\n\n')[2])


def render_job(
    probe: Probe, asked: Asked, folder: Path, request: dict[str, Any], *, with_test: bool
) -> str:
    """The submission file."""
    resources = asked.resources
    count = num_nodes(probe, asked)
    chosen = probe.partition(resources.partition)
    gpus = resources.gpus_per_node or 1
    has_gpus = with_test and chosen is not None and chosen.has_gpus
    further = [*(gpu_options(probe, resources, gpus) if has_gpus else []), *(resources.extra or [])]
    # the header writes those that each job has
    headed = ("--partition=", "--account=", "--qos=", "--reservation=")
    options = [one for one in options_of(resources) if not one.startswith(headed)]
    limit = chosen.max_time_s if chosen and chosen.max_time_s else TIME_S
    profile = asked.profile
    own_python = [profile.python] if profile and profile.python else []
    return render_text(
        "doctor.sbatch.j2",
        run="clusterlm",
        phase="doctor",
        version=__version__,
        resources=resources,
        nodes=count,
        time=slurm_time(min(TIME_S, limit)),
        partition=resources.partition,
        cpus=None,
        mem=None,
        requeue=False,
        stop_grace=0,
        dependency=None,
        submitit_dir=str(folder),
        options=[*options, *further],
        pythons=[sys.executable, *own_python, *_PYTHONS],
        python=sys.executable,
        request=json.dumps(request),
        program=program(),
        env=defaults_of(profile).get("env", {}) if profile else {},
        ranks_per_node=(gpus if has_gpus else 1) if with_test and count == 2 else 0,
    )


def _run(
    probe: Probe,
    asked: Asked,
    host: Host,
    waiting: Waiting,
    folder: Path,
    request: dict[str, Any],
) -> Came:
    text = render_job(probe, asked, folder, request, with_test=waiting.with_test)
    batch = folder / "doctor.sbatch"
    write_atomically(batch, text)
    ahead_s = clock_ahead_s(folder)
    submitted = waiting.now()
    job_id = _send(batch, host)
    waiting.tell(f"job {job_id} looks at {num_nodes(probe, asked)} of the nodes")
    is_over = False
    try:
        answers, trouble, is_over = _wait(job_id, folder, host, waiting)
        is_lost = is_over and not answers.nodes and not _log(folder, job_id).exists()
    finally:
        # whatever it was that ended the wait
        if not is_over:
            scancel(host, [job_id])
    lost = str(runs_dir()) if is_lost else None
    expected = num_nodes(probe, asked)
    if not trouble and len(answers.nodes) < expected:
        trouble = f"{len(answers.nodes)} of {expected} nodes have answered; job {job_id} said:"
    return Came(answers, Clocks(submitted, waiting.now(), ahead_s), trouble, lost)


def _send(batch: Path, host: Host) -> str:
    names = ",".join(sorted(environment.for_submission(os.environ)))
    argv = ["sbatch", "--parsable", f"--export={names}", str(batch)]
    done = host.run(argv, timeout_s=60.0)
    found = re.match(r"(\d+)", done.out.strip())
    if not done.is_ok or found is None:
        raise SlurmError(f"sbatch refused the job that looks at them: {last_words(done)}")
    return found[1]


def _wait(job_id: str, folder: Path, host: Host, waiting: Waiting) -> tuple[NodeAnswers, str, bool]:
    """What the log says in the end; what went wrong; whether the job is over."""
    deadline, next_question, said = waiting.now() + waiting.seconds, 0.0, ""
    words = "it did not start"
    while True:
        answers = _read(folder, job_id)
        if answers.is_whole:
            return answers, "", True
        if waiting.now() >= next_question:
            row = _look(host, job_id)
            next_question = waiting.now() + ASK_EVERY_S
            if row and row.life is Life.ENDED:
                return _after_the_end(row, folder, waiting)
            words = _doing(row)
        if waiting.now() >= deadline:
            trouble = f"given up after {spoken(waiting.seconds)}: {words}"
            return answers, f"{trouble} (a longer wait: --wait SECONDS)", False
        if words != said:
            waiting.tell(words)
            said = words
        waiting.sleep(LOOK_EVERY_S)


def _after_the_end(row: JobRow, folder: Path, waiting: Waiting) -> tuple[NodeAnswers, str, bool]:
    for _ in range(int(SEEN_WITHIN_S)):
        answers = _read(folder, row.job_id)
        if answers.is_whole:
            return answers, "", True
        waiting.sleep(1.0)
    is_lost = not answers.nodes and not _log(folder, row.job_id).exists()
    seen = "no log came of it" if is_lost else "it ended too early"
    return answers, f"job {row.job_id} {row.state}{row.by_whom} ({row.exit_code}): {seen}", True


def _look(host: Host, job_id: str) -> JobRow | None:
    try:
        rows = ask_squeue(host, [job_id]).get(job_id) or ask_sacct(host, [job_id]).get(job_id)
    except SlurmUnreachable:
        # blind is not over
        return None
    return rows[-1] if rows else None


def _doing(row: JobRow | None) -> str:
    if row is None:
        return "Slurm does not answer"
    if row.life is Life.WAITING:
        return f"in the queue: {row.reason_words or row.state.lower()}"
    return f"on {row.nodes}"


def _log(folder: Path, job_id: str) -> Path:
    return folder / f"{job_id}_0_log.out"


def _read(folder: Path, job_id: str) -> NodeAnswers:
    lines = []
    for file in (_log(folder, job_id).with_suffix(".err"), _log(folder, job_id)):
        try:
            os.listdir(folder)
            lines += file.read_bytes().splitlines()
        except OSError:
            continue
    return parse_answers("\n".join(readable(line) for line in lines))
