"""Has the kernel's out-of-memory killer struck? SIGKILL alone does not say who sent it.

The kernel counts: for the control group of this process (memory.events, in cgroup v1
memory.oom_control), and for the whole node (/proc/vmstat). The group's count is about us and our
children; the node's may be about somebody else's process, so it can only clear the kernel.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


class Kills(NamedTuple):
    """Processes that the kernel has killed for want of memory; None where it does not say."""

    group: int | None
    node: int | None


def count_kills(proc: Path = PROC, groups: Path = GROUPS) -> Kills:
    """What the kernel has counted so far."""
    found = (_count(path) for path in _files_of_group(proc, groups))
    group = next((count for count in found if count is not None), None)
    return Kills(group, _count(proc / "vmstat"))


def has_struck(before: Kills, after: Kills) -> bool | None:
    """Whether it has killed one of ours between two counts; None: it cannot be known."""
    if before.group is not None and after.group is not None:
        return after.group > before.group
    if before.node is not None and before.node == after.node:
        return False
    return None


def _files_of_group(proc: Path, groups: Path) -> list[Path]:
    """Where the count of this process's group may stand.

    "4:memory:/job_7" is cgroup v1, "0::/job_7" v2; in a container the group is often the root.
    """
    found = []
    for line in _text(proc / "self" / "cgroup").splitlines():
        number, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        inner = path.lstrip("/")
        if "memory" in controllers.split(","):
            found.append(groups / "memory" / inner / "memory.oom_control")
        elif number == "0":
            found.append(groups / inner / "memory.events")
    return found


def _count(path: Path) -> int | None:
    match = re.search(r"^oom_kill (\d+)$", _text(path), re.MULTILINE)
    return int(match[1]) if match else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
