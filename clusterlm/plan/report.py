"""The plan of a job, as a table for people, as its arithmetic, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clusterlm.plan.budget import Budget, Disk
from clusterlm.plan.gpus import GIB
from clusterlm.plan.measured import Measured
from clusterlm.plan.memory import Memory
from clusterlm.plan.origin import Known
from clusterlm.plan.setup import Setup
from clusterlm.plan.states import persistent_elements
from clusterlm.plan.verdict import Limit, Proposal
from clusterlm.spec.units import counted, spoken


@dataclass(frozen=True)
class Report:
    """Everything a plan tells."""

    job: str
    known: Known
    setup: Setup
    gpu_name: str | None
    memory: Memory
    limits: tuple[Limit, ...]
    budget: Budget
    disk: Disk
    notes: tuple[str, ...]
    proposal: Proposal | None
    speedups: tuple[tuple[str, bool, str], ...] = ()
    measured: Measured | None = None

    @property
    def fits(self) -> bool:
        """Nothing that is known is too small."""
        return all(limit.fits for limit in self.limits)

    @property
    def verdict(self) -> str:
        """One line."""
        if self.fits:
            unknown = [limit.name for limit in self.limits if limit.have is None]
            return "fits" + (f", as far as known ({', '.join(unknown)} unknown)" if unknown else "")
        short = [
            f"{limit.name} {_gib(limit.need)} of {_gib(limit.have)} GiB"
            f"{'' if limit.is_certain else ' (by less than the error of the estimate)'}"
            for limit in self.limits
            if not limit.fits and limit.have is not None
        ]
        return f"DOES NOT FIT: {'; '.join(short)}"


def lines_of(report: Report, *, explain: bool = False) -> Iterator[str]:
    """For people."""
    setup, memory = report.setup, report.memory
    yield from _head(report)
    yield ""
    gpu = next((limit for limit in report.limits if limit.name == "GPU"), None)
    device = "process" if setup.on_cpu else "GPU"
    yield from _column(f"{device}, per rank", memory.device, memory.peak, gpu)
    host = dict(memory.host)
    if memory.loading > sum(host.values()):
        host["or while loading"] = memory.loading
    limit = next(limit for limit in report.limits if limit.name == "host")
    yield from _column("host, per node", host, memory.host_peak, limit)
    yield from _disk(report)
    yield from _time(report)
    if report.measured is not None:
        yield report.measured.line(setup, memory)
    if report.speedups:
        yield ""
        for name, is_on, why in report.speedups:
            yield f"{'on ' if is_on else 'off'}  {name:<27}{why}"
    if explain:
        yield ""
        yield from arithmetic(report)
    yield ""
    yield from (f"note: {note}" for note in (*report.known.notes, *report.notes))
    yield report.verdict
    yield from _advice(report)


def arithmetic(report: Report) -> Iterator[str]:
    """Where the figures come from, with the numbers of this job."""
    setup, shape = report.setup, report.setup.shape
    n, trained, ranks = setup.num_parameters, setup.num_trained, setup.ranks
    yield f"N = {n:,} parameters, T = {trained:,} trained, w = {ranks} ranks"
    yield (
        f"  = {shape.layers} layers x ({shape.num_matrices // max(1, shape.layers):,} in matrices)"
        f" + embeddings {shape.num_embedding:,} + norms and biases"
    )
    yield from _state_arithmetic(setup)
    yield from _all_memory(report)
    per_token = report.memory.device.get("activations", 0) / max(1, setup.tokens * shape.layers)
    yield (
        f"activations: {setup.tokens:,} tokens x {shape.layers} layers x {per_token:,.0f} bytes"
        f"{' (inputs of recomputed layers)' if setup.recompute_every else ''}"
    )
    if not setup.liger:
        logits = 12 * setup.tokens * shape.vocab
        yield (
            f"logits: {setup.tokens:,} tokens x {shape.vocab:,} entries x 12 bytes "
            f"= {_gib(logits)} GiB"
        )
    moments = ", ".join(f"{name} {_gib(size)}" for name, size in report.memory.totals.items())
    yield f"moments of a step, GiB: {moments}; the largest counts"
    if report.budget.speed:
        yield f"speed: {report.budget.speed.origin}"


def as_json(report: Report) -> dict[str, Any]:
    """For programs; bytes and seconds."""
    budget, setup = report.budget, report.setup
    return {
        "job": report.job,
        "fits": report.fits,
        "certain": any(limit.is_certain for limit in report.limits),
        "verdict": report.verdict,
        "model": {
            "origin": report.known.origin,
            "parameters": setup.num_parameters,
            "active": setup.shape.num_active,
            "trained": setup.num_trained,
        },
        "strategy": setup.strategy,
        "ranks": setup.ranks,
        "gpu": report.gpu_name,
        "device_bytes": dict(report.memory.device),
        "host_bytes": dict(report.memory.host),
        "loading_bytes": report.memory.loading,
        "limits": [
            {"name": limit.name, "need": limit.need, "have": limit.have, "fits": limit.fits}
            for limit in report.limits
        ],
        "checkpoint_bytes": report.disk.checkpoint,
        "model_bytes": report.disk.model,
        "tokens": budget.tokens,
        "steps": budget.steps,
        "tokens_per_s": budget.speed.tokens_per_s if budget.speed else None,
        "speed_is_measured": budget.speed.is_measured if budget.speed else None,
        "seconds": budget.seconds,
        "gpu_hours": budget.gpu_hours,
        "jobs": budget.jobs,
        "measured": report.measured.as_json(setup, report.memory) if report.measured else None,
        "speedups": [{"name": n, "on": on, "why": why} for n, on, why in report.speedups],
        "notes": [*report.known.notes, *report.notes],
        "set": list(report.proposal.settings) if report.proposal else [],
    }


def _head(report: Report) -> Iterator[str]:
    setup = report.setup
    device = "CPU" if setup.on_cpu else report.gpu_name or "GPU of unknown type"
    count = (
        f"{setup.ranks} process{'es' * (setup.ranks > 1)}," if setup.on_cpu else f"{setup.ranks} x"
    )
    active = setup.shape.num_active
    share = f", {counted(active)} active" if setup.shape.experts else ""
    yield (
        f"{report.known.origin}: {counted(setup.shape.num_parameters)} parameters{share}, "
        f"{counted(setup.num_trained)} trained ({setup.mode})"
    )
    words = f"{count} {device} on {setup.nodes} node{'s' if setup.nodes > 1 else ''}"
    yield (
        f"{words}, {setup.strategy}, {setup.precision}, micro batch {setup.micro_batch} x "
        f"{setup.block_size} tokens x {setup.accumulation} passes"
        f"{', activation checkpointing' if setup.recompute_every else ''}"
        f"{', Liger' if setup.liger else ''}"
    )


def _column(
    head: str, parts: Mapping[str, float], most: float, limit: Limit | None
) -> Iterator[str]:
    """Components and their sum, in MiB where all of it is below a GiB."""
    unit, size = ("MiB", GIB / 1024) if most < GIB else ("GiB", GIB)
    yield f"{head:<24}{unit:>11}"
    for name, part in parts.items():
        yield f"  {name:<24}{_rounded(part / size):>9}"
    there = "" if limit is None or limit.have is None else f" of {_rounded(limit.have / size)}"
    yield f"  {'at most':<24}{_rounded(most / size):>9}{there}"


def _disk(report: Report) -> Iterator[str]:
    disk = report.disk
    free = next((limit for limit in report.limits if limit.name == "disk"), None)
    yield (
        f"disk  {_gib(disk.most)} GiB{_of(free, 'free')}: {disk.num_kept} checkpoints of "
        f"{_gib(disk.checkpoint)} and one being written, model {_gib(disk.model)}"
    )


def _time(report: Report) -> Iterator[str]:
    budget = report.budget
    if budget.tokens is None:
        yield f"time  unknown: {budget.origin}"
        return
    steps = f"{budget.steps:,} steps, " if budget.steps else ""
    yield f"tokens  {counted(budget.tokens)} ({steps}{budget.origin})"
    if budget.seconds is None or budget.speed is None:
        yield f"time  unknown: {budget.no_speed}; a measured one is --tokens-per-s N"
        return
    cost = f", {budget.gpu_hours:,.1f} GPU-hours" if budget.gpu_hours is not None else ""
    jobs = f", {budget.jobs} jobs of the time limit" if (budget.jobs or 1) > 1 else ""
    rate = budget.speed.tokens_per_s / report.setup.ranks
    yield f"time  {spoken(budget.seconds)}{cost}{jobs} at {rate:,.0f} tokens/s per rank"
    yield f"      {budget.speed.origin}"


def _state_arithmetic(setup: Setup) -> Iterator[str]:
    n, trained, e = setup.num_parameters, setup.num_trained, setup.compute_bytes
    if setup.zero is None:
        s = setup.weight_bytes
        each = f"{s} weights + {s} gradients + {2 * s} optimizer"
        total = s * n + (s + setup.state_bytes * s / 4) * trained
        yield f"states: {each} bytes per element = {total / 1e12:.3f} TB in all, {setup.strategy}"
        return
    total = e * n + (e + 4 + setup.state_bytes) * trained
    yield (
        f"states: {e}N weights + {e}T gradients + 4T float32 weights + {setup.state_bytes:g}T "
        f"optimizer = {total / 1e12:.3f} TB over all ranks"
    )
    if setup.zero.stage == 3:
        kept = persistent_elements(setup, setup.zero.persists_below)
        yield (
            f"persistence threshold {setup.zero.persists_below:,}: {kept:,} elements "
            f"({kept / n:.0%}) stay whole on each rank, {_gib(e * kept)} GiB"
        )


def _all_memory(report: Report) -> Iterator[str]:
    """What all machines have together, to hold the states against."""
    setup = report.setup
    have = {limit.name: limit.have for limit in report.limits if limit.have is not None}
    parts, total = [], 0.0
    for name, count in (("GPU", setup.ranks), ("host", setup.nodes)):
        if name in have:
            parts.append(f"{count} x {_gib(have[name])} GiB {name}")
            total += count * have[name]
    if parts:
        yield f"memory there: {' + '.join(parts)} = {total / 1e12:.3f} TB"


def _advice(report: Report) -> Iterator[str]:
    if report.fits:
        return
    lacking = {limit.name for limit in report.limits if not limit.fits}
    if "disk" in lacking:
        yield "disk: let CLUSTERLM_RUNS_DIR name a folder on a larger one, or free some space"
    if lacking == {"disk"}:
        return
    if report.proposal is None:
        yield "no setting that was tried fits: it takes a smaller model, or larger machines"
        return
    yield f"nearest that fits: {', '.join(report.proposal.words)}"
    proposal = report.proposal
    rank, node = _gib(proposal.memory.peak), _gib(proposal.memory.host_peak)
    yield f"  then {rank} GiB per rank, and {node} GiB of host memory per node"
    for line in proposal.settings:
        yield f"  --set {_quoted(line)}"


def _quoted(line: str) -> str:
    return f"'{line}'" if any(c in line for c in " {}") else line


def _of(limit: Limit | None, word: str = "there") -> str:
    return "" if limit is None or limit.have is None else f" of {_gib(limit.have)} {word}"


def _gib(size: float | None) -> str:
    return _rounded((size or 0) / GIB)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
