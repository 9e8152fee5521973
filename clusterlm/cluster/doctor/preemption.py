"""What a preempted job gets here, from the source of Slurm (src/interfaces/preempt.c). Pure.

With a grace time its steps get SIGTERM and that long; with none a job of a REQUEUE partition is
ended at once, without a warning. Which grace counts depends on PreemptType: with `partition_prio`
the partition's, with `qos` that of the quality of service.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from clusterlm.cluster.doctor.finding import Finding, Save, note, warn
from clusterlm.spec.probe import Probe
from clusterlm.spec.units import spoken

MARGIN = 1.2
"""A save may take that much longer than the last one did."""
LITTLE_S = 60
_NEVER = ("OFF", "DISABLED", "")


def preemption(probe: Probe, save: Save | None = None) -> Iterator[Finding]:
    """What to know of it; nothing where jobs are not preempted."""
    places = _alike(_places(probe))
    if not places:
        if save is not None:
            yield note("jobs are not preempted here")
        return
    if save is None:
        for where, mode, grace_s in places:
            yield _without_a_run(where, mode, grace_s)
        return
    for where, mode, grace_s in places:
        yield _for_a_run(where, mode, grace_s, save)


def _alike(places: Iterable[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """Those that treat a job the same way, told as one."""
    names: dict[tuple[str, int], list[str]] = {}
    for where, mode, grace_s in places:
        names.setdefault((mode, grace_s), []).append(where)
    return [(", ".join(where), mode, grace_s) for (mode, grace_s), where in names.items()]


def _places(probe: Probe) -> Iterator[tuple[str, str, int]]:
    """Where a job may be preempted: name, mode, seconds of grace."""
    kind = probe.preempt_type
    if kind in (None, "none"):
        return
    common = _first(probe.preempt_mode)
    if kind == "qos":
        for qos in probe.qos_limits:
            mode = _first(qos.preempt_mode) or common
            victims = {name for other in probe.qos_limits for name in other.preempts}
            if qos.name in victims and mode not in _NEVER:
                yield f"qos {qos.name}", mode, qos.grace_s or 0
        return
    highest = max((part.priority_tier or 0 for part in probe.partitions), default=0)
    within = "WITHIN" in (probe.preempt_mode or "").upper()
    for part in probe.partitions:
        mode = _first(part.preempt_mode) or common
        is_below = within or part.priority_tier is None or part.priority_tier < highest
        if mode not in _NEVER and is_below:
            yield f"partition {part.name}", mode, part.grace_s or 0


def _first(mode: str | None) -> str:
    # GANG,SUSPEND; WITHIN,REQUEUE
    words = [w for w in (mode or "").upper().split(",") if w not in ("GANG", "WITHIN", "PRIORITY")]
    return words[0] if words else ""


def _without_a_run(where: str, mode: str, grace_s: int) -> Finding:
    if mode == "SUSPEND":
        return note(f"{where}: a preempted job is suspended and goes on later; nothing is lost")
    after = (
        "comes back by itself" if mode == "REQUEUE" else "does not come back (clusterlm resume RUN)"
    )
    if grace_s == 0:
        return warn(
            f"{where}: a preempted job is ended without a warning and {after}",
            "save often: what was trained since the last save is lost (train.save_steps)",
        )
    words = f"{where}: preemption gives {spoken(grace_s)} to save, then the job {after}"
    if grace_s < LITTLE_S:
        return warn(words, "is it enough for a run? clusterlm doctor --run RUN")
    return note(words)


def _for_a_run(where: str, mode: str, grace_s: int, save: Save) -> Finding:
    took = f"the last save of {save.run} took {spoken(save.seconds)}"
    if mode == "SUSPEND":
        return note(f"{where}: a preempted job is suspended; {took}")
    if grace_s >= MARGIN * save.seconds:
        return note(f"{where}: preemption gives {spoken(grace_s)}, and {took}: enough")
    gives = f"gives {spoken(grace_s)}" if grace_s else "gives no time at all"
    return warn(
        f"{where}: preemption {gives}, and {took}: it cannot save then",
        "lower train.save_steps, or make saves quicker: LoRA, more ranks, a faster folder",
    )
