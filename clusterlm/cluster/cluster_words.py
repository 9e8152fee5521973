"""Clusters in words: the table of `clusters ls`, and all that is known of one."""

from __future__ import annotations

import time
from collections.abc import Sequence

from clusterlm.cluster.log_text import readable_line
from clusterlm.spec.cluster_defaults import apply_profile, defaults_of
from clusterlm.spec.probe import Probe
from clusterlm.spec.profile import Profile
from clusterlm.spec.units import spoken


def listing(found: Sequence[tuple[str, Profile, Probe | None]]) -> list[str]:
    """The table of `clusters ls`."""
    rows = [("NAME", "WHERE", "FOLDER", "SLURM", "LOOKED AT")]
    for name, profile, probe in found:
        at = f"{profile.user}@" if profile.user else ""
        where = f"{at}{profile.host}" if profile.host else "this machine"
        version = probe.slurm_version if probe and probe.slurm_version else "-"
        rows.append((name, where, profile.folder or "-", version, _age(probe)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join([f"{row[c]:<{widths[c]}}" for c in range(4)] + [row[4]]) for row in rows]


def description(name: str, profile: Profile, probe: Probe | None) -> list[str]:
    """What `clusters show` prints: the profile, what jobs get from it, what doctor found."""
    lines = [name]
    fields = profile.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    for key, value in fields.items():
        if key not in ("resources", "runtime", "mounts", "env", "fabric"):
            lines.append(f"  {key:<10} {_shown(value)}")
    lines += ["", "a job on it gets, where it says nothing itself:"]
    given = apply_profile({"cluster": name, "image": {}}, profile, probe)
    lines += [f"  {note}" for note in given] or ["  nothing"]
    env = defaults_of(profile, probe).get("env", {})
    lines += [f"    {key}={readable_line(value)}" for key, value in env.items()]
    lines += ["", f"doctor: {_age(probe)}"]
    if probe is None:
        return [*lines, f"  look at it: clusterlm doctor --cluster {name}"]
    return lines + _found(probe)


def _found(probe: Probe) -> list[str]:
    runtimes = {"pyxis": probe.pyxis, "enroot": probe.enroot, "apptainer": probe.apptainer}
    facts = {
        "slurm": probe.slurm_version,
        "partitions": ", ".join(p.name + ("*" if p.is_default else "") for p in probe.partitions),
        "GPUs by": ", ".join(f"--{way}" for way in probe.gpu_requests_accepted),
        "containers": ", ".join(name for name, there in runtimes.items() if there),
    }
    return [f"  {key:<10} {readable_line(str(v))}" for key, v in facts.items() if v]


def _age(probe: Probe | None) -> str:
    if probe is None:
        return "never"
    return f"{spoken(max(0.0, time.time() - probe.time))} ago"


def _shown(value: object) -> str:
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return readable_line(text)
