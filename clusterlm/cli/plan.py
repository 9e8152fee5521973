"""plan: memory, time and disk of a training, before anything is queued."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from clusterlm.cli.typed import AsJson, Cluster, Overrides, load, override_of
from clusterlm.errors import CacheNotReady, ClusterLMError

if TYPE_CHECKING:
    from clusterlm.paths import RunPaths
    from clusterlm.plan.make import Facts
    from clusterlm.spec.job import Job
    from clusterlm.spec.load import LoadedJob

# of English and most code with a tokenizer of 32K entries and more
BYTES_PER_TOKEN = 4.0

OWN_JSON = "train.deepspeed"

Value = TypeVar("Value")


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("plan")(plan)


def plan(
    job: Annotated[
        str, typer.Argument(metavar="JOB|RUN", help="The YAML file, or the name of a run.")
    ],
    overrides: Overrides = None,
    cluster: Cluster = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the arithmetic behind the figures.")
    ] = False,
    gpu: Annotated[
        str | None, typer.Option("--gpu", metavar="NAME", help="GPU, such as a100-80 or h100.")
    ] = None,
    gpu_memory: Annotated[
        str | None, typer.Option("--gpu-memory", metavar="SIZE", help="Memory of one GPU: 80G.")
    ] = None,
    host_memory: Annotated[
        str | None, typer.Option("--host-memory", metavar="SIZE", help="Memory of one node: 1T.")
    ] = None,
    parameters: Annotated[
        str | None,
        typer.Option("--parameters", metavar="N", help="Size of a model that is not here: 7B."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="config.json of the model.")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option("--tokens", metavar="N", help="Tokens of one pass: 20B.")
    ] = None,
    tokens_per_s: Annotated[
        float | None,
        typer.Option("--tokens-per-s", min=0.001, help="Measured speed, all ranks together."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a training will need, whether it fits, and what would.

    Of a run its own job is planned, and what it has measured stands beside the plan.
    Exit code 1: something is too small.
    """
    from dataclasses import replace

    from clusterlm.plan.make import make_plan
    from clusterlm.plan.report import as_json as fields
    from clusterlm.plan.report import lines_of
    from clusterlm.spec.units import count_of, mebibytes_of

    run = _run_named(job)
    changes = [*(overrides or []), *([override_of(cluster)] if cluster is not None else [])]
    asked = _load(Path(job), changes) if run is None else _job_of(run, changes)
    facts = _look_up(asked, run)
    given = {
        "gpu": gpu,
        "gpu_bytes": _bytes("--gpu-memory", mebibytes_of, gpu_memory),
        "host_bytes": _bytes("--host-memory", mebibytes_of, host_memory),
        "parameters": _read("--parameters", count_of, parameters),
        "config": config,
    }
    facts = replace(facts, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
    if (number := _read("--tokens", count_of, tokens)) is not None:
        facts = replace(facts, tokens=float(number), tokens_origin="--tokens")
    if tokens_per_s is not None:
        facts = replace(facts, tokens_per_s=tokens_per_s)
    _refuse_unknown_gpu(gpu, gpu_memory)
    report = make_plan(asked, facts)
    if as_json:
        import json

        typer.echo(json.dumps(fields(report)))
    else:
        typer.echo("\n".join(lines_of(report, explain=explain)))
    raise typer.Exit(0 if report.fits else 1)


def warn_if_it_cannot_fit(loaded: LoadedJob) -> None:
    """One line for check and submit, only when the plan is certain; never an error."""
    from clusterlm.plan.make import Facts, make_plan

    try:
        # no files are listed, and transformers is not asked: this is to cost nothing
        report = make_plan(loaded.job, Facts(environ=os.environ, may_import=False))
    except ClusterLMError:
        return
    if any(limit.is_certain for limit in report.limits):
        path = loaded.path.name
        typer.echo(f"note: {report.verdict}; look: clusterlm plan {path}", err=True)


def _run_named(text: str) -> RunPaths | None:
    """A run, where the argument names one and no file."""
    from clusterlm.cluster.status import find_run

    path = Path(text)
    is_run = (path / "events.jsonl").is_file() or not path.exists()
    return find_run(text) if is_run and path.suffix not in {".yaml", ".yml"} else None


def _job_of(run: RunPaths, overrides: list[str] | None) -> Job:
    """What the run was asked."""
    from clusterlm.errors import RunError
    from clusterlm.spec.job import Job

    if overrides:
        raise RunError("--set changes a YAML: name that in place of the run")
    return Job.model_validate_json(run.spec.read_text(encoding="utf-8"))


def bytes_of_checkpoints(job: Job) -> float | None:
    """What the checkpoints that are kept and the model need on the disk; None: not known."""
    from clusterlm.plan.make import Facts, make_plan

    try:
        return make_plan(job, Facts(environ=os.environ, may_import=False)).disk.most
    except ClusterLMError:
        return None


def _load(path: Path, overrides: list[str] | None) -> Job:
    """The job; what `check` says against a DeepSpeed JSON of the user's is told and planned."""
    from clusterlm.errors import SpecError

    try:
        return load(path, overrides, None).job
    except SpecError as error:
        own = _own_deepspeed(path, overrides)
        if own is None or any(p.where.removeprefix("--set ") != OWN_JSON for p in error.problems):
            raise
        job = load(path, [*(overrides or []), f"{OWN_JSON}=null"], None).job
        for problem in error.problems:
            typer.echo(f"note: check refuses {OWN_JSON}: {problem.message}", err=True)
        train = job.train.model_copy(update={"deepspeed": str(own)})
        return job.model_copy(update={"train": train})


def _own_deepspeed(path: Path, overrides: list[str] | None) -> Path | None:
    """The file that train.deepspeed names."""
    from clusterlm.spec.document import read_document
    from clusterlm.spec.overrides import apply_overrides

    values = read_document(path.read_text(encoding="utf-8")).values
    apply_overrides(values, overrides or [])
    train = values.get("train")
    named = train.get("deepspeed") if isinstance(train, dict) else None
    if not isinstance(named, str):
        return None
    file = path.absolute().parent / Path(named).expanduser()
    return file if file.is_file() else None


def _look_up(job: Job, run: RunPaths | None) -> Facts:
    """What this machine knows about the job, and has from `run` or one of the job's name."""
    from clusterlm.paths import RunPaths, runs_dir
    from clusterlm.plan.before import read_before
    from clusterlm.plan.make import Facts

    tokens, origin = _tokens_of(job)
    return Facts(
        environ=os.environ,
        host_bytes=_memory_here() if job.cluster == "local" else None,
        disk_bytes=_free_disk(),
        tokens=tokens,
        tokens_origin=origin,
        count_saved=_count_saved,
        before=read_before(run or RunPaths(runs_dir() / job.name), job),
        liger=_has_liger(job),
        speedups=_speedups(job),
    )


def _tokens_of(job: Job) -> tuple[float | None, str]:
    """Of prepared data, else guessed from the size of the sources."""
    if job.data is None:
        return None, "the job has no data section; give --tokens N"
    if job.train.max_steps is not None:
        return None, ""
    from clusterlm.data.files import list_files
    from clusterlm.data.fingerprint import describe, fingerprint_of_parts, sources_of
    from clusterlm.data.whole import read_manifest
    from clusterlm.paths import CachePaths, cache_dir

    try:
        # hashing the sources is for nothing where no data has been prepared at all
        if not any(cache_dir().glob("*/READY")):
            raise CacheNotReady("nothing is prepared")
        fingerprint = fingerprint_of_parts(describe(job.data))
        manifest = read_manifest(CachePaths.of(fingerprint).root, fingerprint)
        blocks = int(manifest["splits"]["train"]["blocks"])
        return float(blocks * job.data.block_size), f"prepared data {fingerprint[:12]}"
    except ClusterLMError:
        pass
    sources = [s for _, s in sources_of(job.data) if not getattr(s, "validation", False)]
    if any(source.hub is not None for source in sources):
        return None, "the size of data on the hub is not known before it is prepared; --tokens N"
    try:
        size = sum(file.num_bytes for source in sources for file in list_files(source))
    except ClusterLMError as error:
        return None, f"{' '.join(str(error).split())}; give --tokens N"
    return size / BYTES_PER_TOKEN, f"a guess: {size / 1e9:.3g} GB of sources, 4 bytes a token"


def _count_saved(folder: Path) -> int | None:
    """Elements of the weights in a model's folder, by their headers alone."""
    from math import prod

    from clusterlm.errors import WeightsError
    from clusterlm.weights.files import Weights

    try:
        return sum(prod(tensor.shape) for tensor in Weights.open(folder).tensors.values())
    except (WeightsError, OSError):
        return None


def _speedups(job: Job) -> tuple[tuple[str, bool, str], ...]:
    """What the trainer switches on by itself, in its own words."""
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec("clusterlm.train.speed") is None or job.train.command:
        return ()
    explain = import_module("clusterlm.train.speed").explain_speed
    return tuple(tuple(part) for part in explain(job, on_cpu=not job.resources.gpus_per_node))


def _has_liger(job: Job) -> bool:
    from importlib.util import find_spec

    asked = job.train.liger
    is_here = asked == "auto" and find_spec("liger_kernel") is not None
    return bool(job.resources.gpus_per_node) and (asked is True or is_here)


def _memory_here() -> float | None:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError):
        return None


def _free_disk() -> float | None:
    from clusterlm.paths import runs_dir

    folder = runs_dir()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        return float(shutil.disk_usage(folder).free)
    except OSError:
        return None


def _refuse_unknown_gpu(name: str | None, memory: str | None) -> None:
    from clusterlm.plan.gpus import GPUS, find_gpu

    if name is not None and memory is None and find_gpu(name) is None:
        known = ", ".join("-".join(gpu.words) for gpu in GPUS)
        raise ClusterLMError(f"--gpu {name}: not known; known are {known}; or give --gpu-memory")


def _bytes(option: str, reader: Callable[[object], int], text: str | None) -> float | None:
    found = _read(option, reader, text)
    return None if found is None else found * 2.0**20


def _read(option: str, reader: Callable[[object], Value], text: str | None) -> Value | None:
    if text is None:
        return None
    try:
        return reader(text)
    except ValueError as error:
        raise ClusterLMError(f"{option}: {error}") from None
