"""What the probe job has seen on nodes, and room on disks, in words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clusterlm.cluster.doctor.finding import Finding, bad, note, warn
from clusterlm.node.room import bytes_told
from clusterlm.spec.probe import Probe
from clusterlm.spec.units import spoken

FEW_BYTES = 20 * 2**30
"""Less holds hardly two checkpoints of a small model."""
FEW_FILES = 20_000
SLOW_S = 2.0
"""write + fsync + rename of a small file: local disk 5 ms, NFS 20 ms, a busy parallel one 0.3 s."""
SKEW_S = 5.0
MUNGE_S = 60.0
"""Slurm's credentials are void from a few minutes on; long before that times make no sense."""
_LOOPBACK = "lo"


def _folders(probe: Probe) -> Iterator[Finding]:
    for folder in probe.folders:
        if folder.visible is False:
            yield bad(
                f"nodes do not see {folder.path}",
                "runs, caches, images and Python must lie on a folder that all nodes share",
            )
        elif folder.fsync_rename is False:
            yield bad(
                f"nodes cannot write {folder.path}",
                "is it mounted read-only there, or the quota used up?",
            )
        elif folder.fsync_rename_s is not None and folder.fsync_rename_s > SLOW_S:
            yield warn(
                f"{folder.path} is slow: a small file took {folder.fsync_rename_s:.1f} s",
                "saves will wait for it; another file system, if there is one, saves time",
            )


def _room(probe: Probe) -> Iterator[Finding]:
    seen = set()
    for folder in probe.folders:
        room = (folder.free_bytes, folder.free_inodes)
        # folders of one file system have the same numbers
        if room in seen:
            continue
        seen.add(room)
        if folder.free_bytes is not None and folder.free_bytes < FEW_BYTES:
            left = bytes_told(folder.free_bytes)
            yield warn(f"{folder.path}: {left} are free", "clusterlm check JOB says what it needs")
        if folder.free_inodes is not None and folder.free_inodes < FEW_FILES:
            yield warn(f"{folder.path}: only {folder.free_inodes:,} more files may be made")


def _clock(probe: Probe) -> Iterator[Finding]:
    skew = probe.clock_skew_s
    if skew is not None and abs(skew) > SKEW_S:
        say = bad if abs(skew) > MUNGE_S else warn
        yield say(
            f"the clocks of nodes and of the login node differ by {spoken(abs(skew))}",
            "tell the site: Slurm's credentials expire, and ages in `status` are wrong by as much",
        )


def _python(probe: Probe) -> Iterator[Finding]:
    for node in probe.nodes:
        if node.python is None:
            yield bad(
                f"{node.host} has no Python that could run the probe (3.10 or newer)",
                "give one on a shared folder: `python` in the profile",
            )


def _network(probe: Probe) -> Iterator[Finding]:
    names = [node.interface for node in probe.nodes if node.interface]
    if len(probe.nodes) < 2 or not names:
        return
    if _LOOPBACK in names:
        yield bad(
            "the name of a node leads to its loopback there: ranks would not find each other",
            "tell the site: /etc/hosts of the nodes names 127.0.1.1 for them",
        )
    elif len(set(names)) == 1:
        yield note(
            f"nodes reach each other over {names[0]}: clusterlm tells gloo so",
            f"for NCCL, where it chooses another: env: {{NCCL_SOCKET_IFNAME: {names[0]}}}",
        )
    else:
        each = ", ".join(f"{n.host} {n.interface}" for n in probe.nodes if n.interface)
        yield warn(f"nodes reach each other over interfaces of several names: {each}")


def _nodes_test(probe: Probe) -> Iterator[Finding]:
    test = probe.nodes_test
    if test is None:
        return
    if not test.ok:
        yield bad(f"the all-reduce over two nodes failed: {test.text}", "a training would, too")
    elif test.gb_per_s:
        yield note(f"all-reduce over two nodes: {test.gb_per_s:.2f} GB/s; {test.text}")


def gradients_told(gb_per_s: float) -> str:
    """What a bandwidth means for a step: ring all-reduce moves about 2 bytes a byte and rank."""
    full, lora = 7e9 * 2, 40e6 * 2
    return (
        f"the gradients of a 7B model (bf16) take about {spoken_short(2 * full / gb_per_s / 1e9)}"
        f" a step, those of a LoRA of 40 M {spoken_short(2 * lora / gb_per_s / 1e9)}"
    )


def spoken_short(seconds: float) -> str:
    """`7 ms`, `2.4 s`, `3 min`."""
    if seconds < 1:
        return f"{max(1, round(seconds * 1000))} ms"
    return f"{seconds:.1f} s" if seconds < 90 else spoken(seconds)


def _not_looked(probe: Probe) -> Iterator[Finding]:
    if probe.slurm_version and not probe.nodes:
        yield note("no compute node was looked at: folders, clocks and Python there are not known")


Rule = Callable[[Probe], Iterator[Finding]]
NODE_RULES: tuple[Rule, ...] = (
    *(_folders, _room, _clock, _python, _network, _nodes_test, _not_looked),
)
