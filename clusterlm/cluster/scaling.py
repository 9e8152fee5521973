"""`clusterlm scaling`: the same training, short, at several sizes; nothing is saved.

Runs are sent as `submit` sends them and share one preparation of the data. On Slurm all go at
once; on this machine one after the other, for they would share its cores. Ctrl-C takes away what
was sent.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from clusterlm.cluster.cancel import cancel
from clusterlm.cluster.host import Host
from clusterlm.cluster.interrupts import deaf, ends_like_ctrl_c
from clusterlm.cluster.run_status import RunStatus
from clusterlm.cluster.scaling_report import Measured, Setting, Size
from clusterlm.cluster.status import StatusReader, supervisor_lives
from clusterlm.cluster.submit import submit
from clusterlm.cluster.table import one_line, why
from clusterlm.errors import ClusterLMError, Problem, SpecError
from clusterlm.node.files import read_jsonl
from clusterlm.paths import RunPaths, runs_dir
from clusterlm.spec.job import LOCAL, Job
from clusterlm.spec.load import LoadedJob
from clusterlm.spec.train import DeepSpeed
from clusterlm.supervise.causes import State

ONLY_MEASURE = "CLUSTERLM_ONLY_MEASURE"
"""Tells the trainer that nothing is to be evaluated or saved."""
LOOK_EVERY_S = 1.0
LONGEST_NAME = 64
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """What is to be measured.

    Attributes:
        sizes: smallest first.
        steps: measured at each size.
        warmup: steps before them, which do not count.
    """

    sizes: tuple[Size, ...]
    steps: int = 20
    warmup: int = 5


def sizes_for(job: Job, nodes: Sequence[int], ranks_per_node: Sequence[int]) -> tuple[Size, ...]:
    """Every combination, smallest first. Pure.

    Args:
        job: what is left out is taken from it; one node, two, four, ... up to its own.
        nodes: on this machine, which is one: so many times the ranks of a node.
        ranks_per_node: GPUs, or processes on the CPU.
    """
    asked = nodes or [2**n for n in range(20) if 2**n <= job.resources.nodes]
    each = ranks_per_node or [job.resources.ranks_per_node]
    sizes = {Size(n, ranks) for n, ranks in product(asked, each)}
    if job.cluster == LOCAL:
        sizes = {Size(1, size.ranks) for size in sizes}
    return tuple(sorted(sizes, key=lambda size: (size.ranks, size.nodes)))


def job_at(job: Job, size: Size, wish: Wish) -> Job:
    """The job at a size: the same work for every rank, some steps, nothing saved. Pure."""
    on_gpu = job.resources.gpus_per_node > 0
    resources = job.resources.model_copy(
        update={
            "nodes": size.nodes,
            "spares": 0,
            "gpus_per_node": size.ranks_per_node if on_gpu else 0,
            "processes_per_node": None if on_gpu else size.ranks_per_node,
        }
    )
    steps = wish.steps + wish.warmup
    train = job.train.model_copy(
        update={
            "max_steps": steps,
            "logging_steps": 1,
            "save_steps": steps + 1,
            "eval_steps": None,
            "eval_on_start": False,
            # as many passes as at the job's own size, so that each rank works as there
            "gradient_accumulation": job.gradient_accumulation,
            "global_batch_size": None,
            "report_to": "none",
        }
    )
    recovery = job.recovery.model_copy(
        update={"max_attempts_without_progress": 1, "min_nodes": None}
    )
    changes = {"resources": resources, "train": train, "recovery": recovery}
    ending = f"-scale-{size.nodes}n{size.ranks_per_node}"
    name = job.name[: LONGEST_NAME - len(ending)] + ending
    return job.model_copy(update={**changes, "name": name, "env": job.env | {ONLY_MEASURE: "1"}})


def measure(
    loaded: LoadedJob, wish: Wish, host: Host, *, may_build: bool = True, tell: Tell = print
) -> list[Measured]:
    """Run the job at every size and read how fast it was.

    Raises:
        ClusterLMError: it cannot be measured; what was sent is taken back.
        KeyboardInterrupt: as before, after what was sent was taken back.
    """
    _refuse_what_cannot_be_measured(loaded, wish)
    at_once = loaded.job.cluster != LOCAL
    sent: list[RunPaths] = []
    found: list[Measured] = []
    try:
        with ends_like_ctrl_c():
            for size in wish.sizes:
                sent.append(_send(loaded, size, wish, host, may_build=may_build, tell=tell))
                if not at_once:
                    _wait(sent[-1:], tell)
            if at_once:
                _wait(sent, tell)
    except BaseException:
        # a second Ctrl-C would leave the rest
        with deaf():
            _take_back(sent, host, tell)
        raise
    statuses = {status.run: status for status in _reader().read([run.name for run in sent])}
    for size, run in zip(wish.sizes, sent, strict=True):
        found.append(read_speed(run, size, wish.warmup, statuses.get(run.name)))
    return found


def read_speed(run: RunPaths, size: Size, warmup: int, status: RunStatus | None) -> Measured:
    """The median over the steps that count; a step that a neighbour has slowed moves it little."""
    if status is not None and status.state is not State.DONE:
        return Measured(size, problem=f"{status.state.value} {why(status)}".strip())
    rows = [
        row
        for row in read_jsonl(run.metrics)[0]
        if isinstance(row.get("tokens_per_s_per_gpu"), int | float) and row["step"] > warmup
    ]
    if not rows:
        return Measured(size, problem=f"no speed in {run.metrics}")

    def median(name: str) -> float | None:
        values = [row[name] for row in rows if isinstance(row.get(name), int | float)]
        return statistics.median(values) if values else None

    return Measured(
        size,
        tokens_per_s_per_rank=median("tokens_per_s_per_gpu"),
        step_s=median("step_time_p50"),
        mfu=median("mfu"),
        data_wait=median("data_wait"),
    )


def setting_of(job: Job) -> Setting:
    """What of the job matters for advice."""
    own = job.train.deepspeed
    return Setting(
        on_gpu=job.resources.gpus_per_node > 0,
        strategy=job.train.strategy,
        stage=own.stage if isinstance(own, DeepSpeed) else None,
        gradient_accumulation=job.gradient_accumulation,
    )


def _refuse_what_cannot_be_measured(loaded: LoadedJob, wish: Wish) -> None:
    if loaded.job.train.command is not None:
        text = "scaling measures the built-in trainer; an own script has no such mode"
        raise SpecError(loaded.path.name, [Problem("train.command", text)])
    names = [job_at(loaded.job, size, wish).name for size in wish.sizes]
    found = {status.run: status for status in _reader().read() if status.run in names}
    living = [name for name in names if name in found and not found[name].state.is_final]
    if living:
        ends = "; ".join(f"clusterlm cancel {name}" for name in living)
        raise ClusterLMError(
            f"a measurement of this job is under way: {', '.join(living)}\n  {ends}"
        )


def _send(
    loaded: LoadedJob, size: Size, wish: Wish, host: Host, *, may_build: bool, tell: Tell
) -> RunPaths:
    job = job_at(loaded.job, size, wish)
    run = RunPaths(runs_dir() / job.name)
    # of an earlier measurement, which has ended; there is no model in it
    if (run.root / "events.jsonl").exists():
        shutil.rmtree(run.root)
    own = replace(loaded, job=job)
    submission = submit(own, job.name, host, may_build=may_build, tell=tell)
    tell(f"{job.name}: {size.nodes} x {size.ranks_per_node} ranks sent")
    return submission.run


def _wait(runs: Sequence[RunPaths], tell: Tell) -> None:
    """Until all have ended; a line when one changes."""
    reader, said = _reader(), dict[str, str]()
    names = [run.name for run in runs]
    while True:
        statuses = reader.glance(names)
        for status in statuses:
            if said.get(status.run) != status.state.value:
                said[status.run] = status.state.value
                tell(f"{status.run}  {one_line(status)}")
        if all(status.state.is_final for status in statuses):
            return
        time.sleep(LOOK_EVERY_S)


def _take_back(runs: Sequence[RunPaths], host: Host, tell: Tell) -> None:
    for run in runs:
        try:
            cancel(run, host, now=True, is_running=partial(supervisor_lives, run), tell=tell)
        except ClusterLMError as error:
            # the others are taken back all the same
            tell(f"{run.name}: {error}")


def _reader() -> StatusReader:
    return StatusReader(runs_dir())
