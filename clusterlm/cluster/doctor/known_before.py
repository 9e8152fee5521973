"""What an earlier look knew of the nodes, when this one did not come so far."""

from __future__ import annotations

from clusterlm.spec.probe import Probe, ProbedFolder
from clusterlm.spec.units import spoken

_OF_NODES = ("nodes", "clock_skew_s", "python", "enroot", "apptainer", "nodes_test")


def with_nodes_of(probe: Probe, before: Probe | None) -> Probe:
    """The probe, with what was seen of nodes before; what is known now is left alone.

    A queue that is full today does not unmake what was seen yesterday, and `check` goes by it.
    """
    if probe.nodes or before is None or not before.nodes:
        return probe
    if probe.cluster_name != before.cluster_name:
        return probe
    seen = {folder.path: folder for folder in before.folders}
    fields = {name: getattr(before, name) for name in _OF_NODES if getattr(probe, name) is None}
    looked = before.nodes_time or before.time
    age = spoken(max(0.0, probe.time - looked))
    return probe.model_copy(
        update={
            **fields,
            "nodes": before.nodes,
            "nodes_time": looked,
            "folders": tuple(_with(folder, seen.get(folder.path)) for folder in probe.folders),
            "notes": (*probe.notes, f"nodes now: they are told as they were {age} ago"),
        }
    )


def _with(now: ProbedFolder, before: ProbedFolder | None) -> ProbedFolder:
    if before is None or now.visible is not None:
        return now
    names = ("visible", "fsync_rename", "fsync_rename_s")
    return now.model_copy(update={name: getattr(before, name) for name in names})
