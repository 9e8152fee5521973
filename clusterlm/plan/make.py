"""One plan: the model's shape, memory, verdict, time and disk put together.

What lies outside (files, free space, tokens of prepared data) comes in as `Facts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from clusterlm.errors import ClusterLMError
from clusterlm.plan.before import Before
from clusterlm.plan.budget import Speed, assumed_speed, budget_of, disk_of, why_no_speed
from clusterlm.plan.gpus import GIB, find_gpu
from clusterlm.plan.measured import Measured
from clusterlm.plan.memory import lowest_stage_of, memory_per_rank
from clusterlm.plan.origin import Count, Known, find_shape
from clusterlm.plan.report import Report
from clusterlm.plan.setup import Setup, setup_of
from clusterlm.plan.verdict import Machine, limits_of, nearest_that_fits
from clusterlm.plan.zero import zero_stage
from clusterlm.spec.job import Job
from clusterlm.spec.train import DeepSpeed

BLOCK_SIZE = 2048


@dataclass(frozen=True)
class Facts:
    """What was given or looked up.

    Attributes:
        environ: for the hub's cache.
        config: a config.json in place of the model's.
        parameters: size of a model that cannot be counted.
        gpu: name of the GPU where resources.gpu_type does not say it; `gpu_bytes` its memory.
        host_bytes: memory of a node.
        disk_bytes: free where the runs lie.
        tokens: of one pass over the data, `tokens_origin` from where.
        tokens_per_s: given, of all ranks.
        before: a run of the same model.
        liger: the kernels are there.
        may_import: transformers may be imported.
        count_saved: elements of the weights in a model's folder.
        speedups: what is on and why.
    """

    environ: Mapping[str, str]
    config: Path | None = None
    parameters: int | None = None
    gpu: str | None = None
    gpu_bytes: float | None = None
    host_bytes: float | None = None
    disk_bytes: float | None = None
    tokens: float | None = None
    tokens_origin: str = ""
    tokens_per_s: float | None = None
    before: Before | None = None
    liger: bool = False
    may_import: bool = True
    count_saved: Count | None = None
    speedups: tuple[tuple[str, bool, str], ...] = ()


def make_plan(job: Job, facts: Facts) -> Report:
    """Plan a job.

    Raises:
        ClusterLMError: the model's size cannot be known.
    """
    known = find_shape(
        job,
        environ=facts.environ,
        config=facts.config,
        parameters=facts.parameters,
        may_import=facts.may_import,
        trained=facts.before.model if facts.before else None,
        count_saved=facts.count_saved,
    )
    setup, notes = _setup(job, known, facts)
    name = facts.gpu or job.resources.gpu_type
    gpu = find_gpu(name)
    gpu_bytes = facts.gpu_bytes or (gpu.memory_gib * GIB if gpu else None)
    machine = Machine(
        None if setup.on_cpu else gpu_bytes,
        job.resources.mem * 2.0**20 if job.resources.mem else facts.host_bytes,
        facts.disk_bytes,
    )
    measured = _measured(job, setup, facts)
    setup, stage_notes = _choose_stage(job, setup, machine)
    disk = disk_of(setup, job.train.keep_checkpoints)
    limits = tuple(limits_of(setup, machine, disk=disk.most))
    lacking = any(not limit.fits for limit in limits if limit.name != "disk")
    return Report(
        job=job.name,
        known=known,
        setup=setup,
        gpu_name=gpu.name if gpu else name,
        memory=memory_per_rank(setup),
        limits=limits,
        budget=budget_of(
            setup,
            tokens=facts.tokens,
            origin=facts.tokens_origin,
            epochs=job.train.epochs,
            max_steps=job.train.max_steps,
            speed=_measured_speed(job, facts) or assumed_speed(setup, gpu, name),
            limit_s=job.resources.time,
            no_speed=why_no_speed(setup, gpu, name),
        ),
        disk=disk,
        notes=(*notes, *stage_notes, *_unknown(machine, setup, name)),
        proposal=nearest_that_fits(setup, machine) if lacking else None,
        speedups=facts.speedups,
        measured=measured,
    )


def _setup(job: Job, known: Known, facts: Facts) -> tuple[Setup, list[str]]:
    notes = []
    if job.data is None:
        notes.append(f"the job has no data section: blocks of {BLOCK_SIZE} tokens are assumed")
    if job.train.command:
        notes.append("train.command: planned as if clusterlm's own trainer ran with these settings")
    size = job.data.block_size if job.data else BLOCK_SIZE
    setup = setup_of(job, known.shape, block_size=size, liger=facts.liger)
    if not setup.num_trained:
        where = "model.adapter" if setup.mode == "adapter" else "train.trainable"
        raise ClusterLMError(
            f"{where} names no matrix of a {known.shape.model_type or 'typical'} model, "
            "so nothing would be trained"
        )
    if job.train.mode == "partial":
        notes.append("train.trainable is counted by Llama's names of the layers")
    return setup, notes


def _measured_speed(job: Job, facts: Facts) -> Speed | None:
    if facts.tokens_per_s is not None:
        return Speed(facts.tokens_per_s, "measured: --tokens-per-s", is_measured=True)
    before = facts.before
    if before is None or before.tokens_per_s is None or not before.speed_holds_for(job):
        return None
    return Speed(before.tokens_per_s, f"measured: run {before.run}", is_measured=True)


def _measured(job: Job, setup: Setup, facts: Facts) -> Measured | None:
    """By a run with the same settings, of those that memory and speed depend on."""
    before = facts.before
    if before is None or (before.peak is None and before.tokens_per_s is None):
        return None
    size = before.job.data.block_size if before.job.data else BLOCK_SIZE
    if setup_of(before.job, setup.shape, block_size=size, liger=facts.liger) != setup:
        return None
    return Measured(before.run, before.peak, before.tokens_per_s)


def _choose_stage(job: Job, setup: Setup, machine: Machine) -> tuple[Setup, list[str]]:
    """Stage auto as the trainer would choose it."""
    asked = job.train.deepspeed or DeepSpeed()
    if setup.zero is None or isinstance(asked, str) or asked.stage != "auto" or setup.on_cpu:
        return setup, []
    if machine.gpu is None:
        return setup, ["stage auto: 2 is taken, since the GPU's memory is not known"]
    stage = lowest_stage_of(setup, machine.gpu, parameters=asked.offload_parameters)
    zero = zero_stage(
        stage or 3,
        hidden=setup.shape.hidden,
        offload_optimizer=asked.offload_optimizer,
        offload_parameters=asked.offload_parameters and stage in (3, None),
    )
    words = f"{stage} is the lowest that fits" if stage else "no stage fits, 3 is shown"
    return replace(setup, zero=zero), [f"stage auto: {words}"]


def _unknown(machine: Machine, setup: Setup, name: str | None) -> list[str]:
    notes = []
    if not setup.on_cpu and machine.gpu is None:
        found = (
            f'"{name}" names no GPU of known memory' if name else "resources.gpu_type is not set"
        )
        notes.append(f"{found}: give --gpu a100-80 or --gpu-memory 80G to know whether it fits")
    if machine.host is None:
        notes.append("resources.mem is not set: give --host-memory 1T to compare with")
    return notes
