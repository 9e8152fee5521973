"""A probe for people: what there is in a few tables, then what it means."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from clusterlm.cluster.doctor.finding import Finding, Severity
from clusterlm.cluster.doctor.meaning_nodes import spoken_short
from clusterlm.cluster.doctor.words_of_slurm import written
from clusterlm.cluster.log_text import readable
from clusterlm.node.room import bytes_told
from clusterlm.spec.probe import Probe, ProbedFolder, ProbedMachine, ProbedNode, ProbedPartition
from clusterlm.spec.units import spoken

WIDTH = 100


def lines_of(probe: Probe, findings: Sequence[Finding]) -> list[str]:
    """Everything, safe for a terminal: names of nodes and words of Slurm are not ours."""
    return [readable(line.encode()) for line in _lines(probe, findings)]


def _lines(probe: Probe, findings: Sequence[Finding]) -> Iterator[str]:
    if probe.slurm_version:
        yield from _head(probe)
        yield ""
        yield from columns(_PARTITIONS, [_partition(one) for one in probe.partitions])
    if probe.nodes:
        yield ""
        yield from columns(_NODES, [_node(one) for one in probe.nodes])
    if probe.machine and not probe.slurm_version:
        yield from _machine(probe.machine)
    if probe.folders:
        yield ""
        yield from columns(_FOLDERS, [_folder(one) for one in probe.folders])
    yield ""
    yield from told(findings)
    for line in probe.notes:
        yield f"   not known: {line}"


def columns(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table; a column without any value is left out."""
    table = [list(row) for row in rows]
    used = [c for c in range(len(heads)) if any(row[c] for row in table)]
    whole = [[heads[c] for c in used], *([row[c] or "-" for c in used] for row in table)]
    widths = [max(len(row[c]) for row in whole) for c in range(len(used))]
    for row in whole:
        yield "  ".join(
            f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)
        ).rstrip()


def told(findings: Sequence[Finding]) -> Iterator[str]:
    """Findings, each with what to do below it."""
    if not findings:
        yield "nothing to say against it"
    for finding in findings:
        mark = f"{finding.severity.value:<3}"
        place = f"{finding.where}: " if finding.where else ""
        yield from textwrap.wrap(
            place + finding.words, WIDTH, initial_indent=mark, subsequent_indent="   "
        )
        if finding.advice:
            arrow = "   -> "
            yield from textwrap.wrap(
                finding.advice, WIDTH, initial_indent=arrow, subsequent_indent="      "
            )


def verdict(probe: Probe, findings: Sequence[Finding]) -> str:
    """The last line."""
    count = {s: sum(f.severity is s for f in findings) for s in Severity}
    if number := count[Severity.BAD]:
        return f"{number} thing{'s' * (number > 1)} to mend before a training (!!)"
    is_seen = not probe.slurm_version or probe.nodes
    fit = "fit to train" if is_seen else "nothing against it, but no node was looked at"
    if number := count[Severity.WARN]:
        return f"{fit}; {number} thing{'s' * (number > 1)} to know (!)"
    return fit


def _head(probe: Probe) -> Iterator[str]:
    name = f" {probe.cluster_name}" if probe.cluster_name else ""
    yield f"Slurm {probe.slurm_version}, cluster{name}"
    mode = probe.preempt_mode or "OFF"
    facts = {
        "accounting": {True: "sacct answers", False: "off", None: "not known"}[probe.accounting],
        "account": ", ".join(probe.accounts),
        "GPUs": ", ".join(probe.gres_names),
        "asked by": ", ".join(f"--{way}" for way in probe.gpu_requests_accepted),
        "containers": _containers(probe),
        "preemption": mode if not probe.preempt_type else f"{mode} by {probe.preempt_type}",
        "KillWait": "" if probe.kill_wait_s is None else spoken(probe.kill_wait_s),
        "clocks": _skew(probe.clock_skew_s),
    }
    for key, value in facts.items():
        if value:
            yield f"  {key:<11} {value}"


def _skew(seconds: float | None) -> str:
    # no minus before a zero
    return "" if seconds is None else f"{round(seconds, 1) + 0.0:.1f} s off"


def _containers(probe: Probe) -> str:
    found = {"pyxis": probe.pyxis, "enroot": probe.enroot, "apptainer": probe.apptainer}
    named = [f"{k} {v}" if isinstance(v, str) else k for k, v in found.items() if v]
    return ", ".join(named) or ("none" if probe.pyxis is False else "")


_PARTITIONS = (
    *("PARTITION", "UP/NODES", "CPUS", "MEMORY", "GRES", "LONGEST", "DEFAULT", "MOST NODES"),
    *("PREEMPT", "GRACE", "ONLY FOR"),
)


def _partition(one: ProbedPartition) -> tuple[str, ...]:
    up = "?" if one.nodes_up is None else str(one.nodes_up)
    preempt = one.preempt_mode or ""
    return (
        one.name + ("*" if one.is_default else ""),
        f"{up}/{one.nodes}" if one.state == "UP" else one.state,
        str(one.cpus or ""),
        bytes_told(one.mem_mb * 2**20) if one.mem_mb else "",
        ", ".join(one.gres),
        written(one.max_time_s) if one.max_time_s else "no limit",
        written(one.default_time_s) if one.default_time_s else "",
        str(one.max_nodes or ""),
        "" if preempt == "OFF" else preempt,
        spoken(one.grace_s) if one.grace_s else "",
        ", ".join(one.accounts),
    )


_NODES = ("NODE", "PYTHON", "CLOCK", "NETWORK", "CPUS", "MEMORY", "GPUS", "ENROOT", "APPTAINER")


def _node(one: ProbedNode) -> tuple[str, ...]:
    return (
        one.host,
        one.python or "none",
        _skew(one.clock_skew_s),
        one.interface or "",
        str(one.cpus or ""),
        bytes_told(one.mem_mb * 2**20) if one.mem_mb else "",
        _counted(one.gpus),
        one.enroot or "",
        one.apptainer or "",
    )


_FOLDERS = ("FOLDER", "FREE", "FILES", "ON NODES", "SAVES A FILE IN")


def _folder(one: ProbedFolder) -> tuple[str, ...]:
    seen = {True: "seen", False: "NOT SEEN", None: ""}[one.visible]
    if one.visible and one.fsync_rename is False:
        seen = "seen, NOT WRITABLE"
    return (
        one.path,
        "" if one.free_bytes is None else bytes_told(one.free_bytes),
        "" if one.free_inodes is None else f"{one.free_inodes:,}",
        seen,
        "" if one.fsync_rename_s is None else spoken_short(one.fsync_rename_s),
    )


def _machine(here: ProbedMachine) -> Iterator[str]:
    yield f"this machine ({here.host}), without Slurm"
    facts = {
        "python": here.python,
        "torch": here.torch or "not installed",
        "CPUs": str(here.cpus),
        "memory": bytes_told(here.mem_mb * 2**20) if here.mem_mb else "",
        "GPUs": _counted(here.gpus) or "none",
        "docker": here.docker or "does not answer",
    }
    for key, value in facts.items():
        if value:
            yield f"  {key:<11} {value}"


def _counted(gpus: Sequence[str]) -> str:
    return ", ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus))
