"""The real phases of a job, small and here: the image in the local docker, or the current Python.

Same rendered scripts, mounts, environment, user and command as on the cluster; a small sample of
the data, two training steps, a run directory that is thrown away. A bad mount, a missing package, a
model that does not load or a loss mask without tokens shows in a minute and not after the queue.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from clusterlm.cluster.cancel import cancel
from clusterlm.cluster.dry_run_report import could_not, proved
from clusterlm.cluster.host import Host
from clusterlm.cluster.interrupts import deaf, ends_like_ctrl_c
from clusterlm.cluster.local_gpus import gpus_for
from clusterlm.cluster.status import supervisor_lives
from clusterlm.cluster.submit import submit
from clusterlm.cluster.table import why
from clusterlm.cluster.watch import follow_run
from clusterlm.container import runtime_of
from clusterlm.errors import ClusterLMError, Problem, SpecError
from clusterlm.node.files import read_json, write_json
from clusterlm.paths import PRIVATE_DIR, RunPaths, runs_dir
from clusterlm.spec.data import Data
from clusterlm.spec.job import LOCAL, Job
from clusterlm.spec.load import LoadedJob
from clusterlm.spec.sources import Source
from clusterlm.supervise.allocation import LOCAL_GPUS, LOCAL_NODES, process_lives
from clusterlm.supervise.causes import State

SAMPLE = 200
"""Documents of each source."""

FOLDER = ".dry-runs"
OWNER = "owner.json"
"""Which process takes the folder away; not there in one that is kept."""
INTERRUPTED = 130


@dataclass(frozen=True)
class Wish:
    """What the user asks of a dry run."""

    gpus: str | None = None
    """`all`, `none`, or device numbers as in `0,1`; None: all if the job asks for GPUs."""
    steps: int = 2
    nodes: int = 1
    keep: bool = False
    """Do not throw the run directory away."""


def dry_run(
    loaded: LoadedJob,
    wish: Wish,
    host: Host,
    *,
    may_build: bool = True,
    tell: Callable[[str], None] = print,
) -> int:
    """Run a job small and here, to its end, and say what that has proved.

    Returns:
        Exit code: 0 when it came through, 1 when a phase failed, 130 when interrupted.

    Raises:
        ClusterLMError: it cannot be started; the text says why.
    """
    job = loaded.job
    _refuse_what_cannot_run_here(job, wish, loaded.path.name)
    gpus = gpus_for(job, wish.gpus, wish.nodes, host)
    small = small_job(job, wish, num_gpus=len(gpus))
    _sweep(host)
    folder = _make_folder()
    is_kept = wish.keep
    try:
        with ends_like_ctrl_c(), _as_local_nodes(folder, wish.nodes, gpus):
            code = _run(replace(loaded, job=small), loaded.job, wish, host, may_build, tell)
        # what failed is left to be read
        is_kept = is_kept or code == 1
        return code
    finally:
        if is_kept:
            (folder / OWNER).unlink(missing_ok=True)
            tell(f"the dry run's folder stays: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def small_job(job: Job, wish: Wish, *, num_gpus: int) -> Job:
    """The job, cut down to this machine. Pure.

    Args:
        job: as it was asked for.
        wish: steps and nodes.
        num_gpus: there are here for all nodes together.
    """
    per_node = num_gpus // wish.nodes
    asked = job.resources
    ranks = min(asked.ranks_per_node, per_node) if per_node else min(asked.ranks_per_node, 2)
    cores = os.cpu_count() or 1
    one = asked.preprocess.model_copy(update={"cpus": min(asked.preprocess.cpus, cores)})
    resources = asked.model_copy(
        update={
            "nodes": wish.nodes,
            "spares": 0,
            "gpus_per_node": per_node,
            "processes_per_node": ranks,
            "preprocess": one,
        }
    )
    train = job.train.model_copy(
        update={
            "max_steps": wish.steps,
            "logging_steps": 1,
            "global_batch_size": None,
            "gradient_accumulation": 1,
            # enough to see that checkpoints can be written
            "save_steps": wish.steps,
            "eval_steps": wish.steps if job.train.eval_steps else None,
        }
    )
    recovery = job.recovery.model_copy(
        update={"max_attempts_without_progress": 1, "min_nodes": None}
    )
    image = job.image and job.image.model_copy(update={"runtime": _runtime_here(job)})
    changes = {"resources": resources, "train": train, "recovery": recovery, "image": image}
    env = job.env | {"CLUSTERLM_DRY_RUN_STEPS": str(wish.steps)}
    return job.model_copy(
        update={**changes, "cluster": LOCAL, "env": env, "data": job.data and _sample(job.data)}
    )


def _runtime_here(job: Job) -> str:
    return "none" if runtime_of(job) == "none" else "docker"


def _sample(data: Data) -> Data:
    def small(sources: Sequence[Source]) -> list[Source]:
        limits = [min(source.max_documents or SAMPLE, SAMPLE) for source in sources]
        return [
            source.model_copy(update={"max_documents": limit})
            for source, limit in zip(sources, limits, strict=True)
        ]

    validation = data.validation.model_copy(update={"sources": small(data.validation.sources)})
    # one process is enough for so little
    changes = {"sources": small(data.sources), "validation": validation, "tasks": 1}
    return data.model_copy(update=changes)


def _refuse_what_cannot_run_here(job: Job, wish: Wish, source: str) -> None:
    if job.image and job.image.file:
        text = (
            "a dry run starts the image in docker, and a .sqsh or .sif is none; "
            "leave `file` out and let clusterlm build the image, or write runtime: none"
        )
        raise SpecError(source, [Problem("image.file", text)])
    if wish.steps < 1 or wish.nodes not in (1, 2):
        raise ClusterLMError("dry-run: --steps is 1 or more, --nodes 1 or 2")


def _make_folder() -> Path:
    above = runs_dir() / FOLDER
    above.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
    folder = Path(tempfile.mkdtemp(prefix="", dir=above))
    me = psutil.Process()
    write_json(folder / OWNER, {"pid": me.pid, "started": me.create_time()})
    return folder


def _sweep(host: Host) -> None:
    """End and remove the dry runs whose command was killed before it could."""
    for note in (runs_dir() / FOLDER).glob(f"*/{OWNER}"):
        owner = read_json(note) or {}
        if process_lives(int(owner.get("pid", 0)), owner.get("started")):
            continue
        for events in note.parent.glob("runs/*/events.jsonl"):
            _end(RunPaths(events.parent), host, lambda _: None)
        shutil.rmtree(note.parent, ignore_errors=True)


@contextmanager
def _as_local_nodes(folder: Path, num_nodes: int, gpus: Sequence[str]) -> Iterator[None]:
    """Let runs and prepared data lie in `folder`, and this machine be so many nodes."""
    own = {
        "CLUSTERLM_RUNS_DIR": str(folder / "runs"),
        "CLUSTERLM_CACHE_DIR": str(folder / "cache"),
        LOCAL_NODES: str(num_nodes),
        LOCAL_GPUS: ",".join(gpus),
    }
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run(
    small: LoadedJob,
    asked: Job,
    wish: Wish,
    host: Host,
    may_build: bool,
    tell: Callable[[str], None],
) -> int:
    submission = submit(small, small.job.name, host, may_build=may_build, tell=tell)
    run = submission.run
    try:
        status = follow_run(run)
    except KeyboardInterrupt:
        # a second Ctrl-C would leave the rest
        with deaf():
            tell("interrupted: ending the dry run")
            _end(run, host, tell)
        return INTERRUPTED
    if status.state is not State.DONE:
        tell(f"the dry run failed: {why(status) or status.state.value}")
        tell(f"  look: CLUSTERLM_RUNS_DIR={run.root.parent} clusterlm why {run.name}")
        return 1
    print("\n".join([*proved(run, small.job), *could_not(asked, small.job, wish.steps)]))
    return 0


def _end(run: RunPaths, host: Host, tell: Callable[[str], None]) -> None:
    cancel(run, host, now=True, is_running=lambda: supervisor_lives(run), tell=tell)
