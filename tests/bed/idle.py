"""Back to a clean bed between two tests, whatever the one before did to it.

Undone in this order: frozen and ended daemons, cut links, jobs, drained or silent nodes. A node
that is silent, or not idle `PATIENCE_S` later, is reset: its processes are killed, and Slurm is
told that it was down.
"""

import time
from typing import TYPE_CHECKING

from tests.bed.network import kill_processes_in, namespace
from tests.bed.waiting import POLL_S, BedError

if TYPE_CHECKING:
    from tests.bed.slurm import SlurmBed

# Usual ends take 0.2 s; a job that had to be killed is noticed by slurmd after some 3 s only.
RESET_AGAIN_S = 20.0
PATIENCE_S = 1.0
# "slurmd -D -N node1", "slurmstepd: [7.batch]"
SLURM_OWN = r"^\S*slurm(step)?d\b"


def wait_idle(bed: "SlurmBed", *, timeout_s: float) -> None:
    """Undo all faults, end all jobs, and wait until every node is idle and squeue is empty.

    Raises:
        BedError: something is left after `timeout_s`; the message says what.
    """
    _revive_daemons(bed)
    for node in bed.nodes:
        bed.link_up(node)
    began = time.monotonic()
    was_reset: dict[str, float] = {}
    while True:
        jobs = _end_jobs(bed)
        busy = {node: state for node, state in bed.node_states().items() if state != "idle"}
        if not jobs and not busy:
            return
        waited_s = time.monotonic() - began
        if waited_s > timeout_s:
            raise BedError(f"not idle after {timeout_s:g} s: jobs {jobs}, nodes {busy}")
        for node, state in busy.items():
            is_silent = state.endswith("*") or state == "unknown"
            # again where it registered just before "resume": it counts as silent until a ping
            is_time = waited_s - was_reset.get(node, -RESET_AGAIN_S) >= RESET_AGAIN_S
            if is_time and (is_silent or waited_s > PATIENCE_S):
                _reset_node(bed, node)
                was_reset[node] = waited_s
            elif state.startswith(("down", "drain")):
                # Refused if it resumed by itself meanwhile, which is as good.
                bed.run(["scontrol", "update", f"nodename={node}", "state=resume"])
        time.sleep(POLL_S)


def _revive_daemons(bed: "SlurmBed") -> None:
    for daemon in (bed.munged, bed.mariadbd, bed.slurmdbd, bed.slurmctld, *bed.slurmd.values()):
        daemon.thaw()
    if bed.config.accounting and not bed.slurmdbd.is_alive():
        bed.start_dbd()
    if not bed.slurmctld.is_alive():
        bed.start_controller()
    for node, slurmd in bed.slurmd.items():
        if not slurmd.is_alive():
            bed.restart_node(node)


def _reset_node(bed: "SlurmBed", node: str) -> None:
    """Restart a node so that Slurm lets go of all that ran there.

    A new slurmd alone does not: the controller would ask it for a lost job again only a minute
    later. "down" makes it forget the job at once.
    """
    update = ["scontrol", "update", f"nodename={node}"]
    kill_processes_in(namespace(bed.config, node))
    bed.run([*update, "state=down", "reason=reset"])
    bed.slurmd[node].start()
    bed.run([*update, "state=resume"])


def _end_jobs(bed: "SlurmBed") -> list[str]:
    """Cancel all jobs without their KillWait; returns the ids that are still in squeue."""
    shown = bed.run(["squeue", "-h", "-o", "%A %t"], check=True).stdout
    jobs = sorted({line.split()[0] for line in shown.splitlines()})
    if jobs:
        bed.run(["scancel", *jobs])
    for node in bed.nodes:
        kill_processes_in(namespace(bed.config, node), spare=SLURM_OWN)
    return jobs
