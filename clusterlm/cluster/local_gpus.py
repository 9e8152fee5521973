"""Which GPUs of this machine a dry run may use, as `--gpus` says it: all, none, or 0,1."""

from __future__ import annotations

import re

from clusterlm.cluster.host import Host
from clusterlm.errors import ClusterLMError
from clusterlm.spec.job import Job


def gpus_for(job: Job, asked: str | None, num_nodes: int, host: Host) -> list[str]:
    """Device numbers for all nodes together, the same count for each; empty for the CPU.

    Raises:
        ClusterLMError: no such GPU, or too few for the nodes.
    """
    wanted = job.resources.gpus_per_node
    asked = asked if asked is not None else ("all" if wanted else "none")
    if asked == "none":
        return []
    if asked != "all" and not re.fullmatch(r"\d{1,3}(,\d{1,3})*", asked):
        raise ClusterLMError(f'--gpus "{asked}" is not accepted; write all, none, or numbers: 0,1')
    there = _gpus_here(host)
    chosen = there if asked == "all" else asked.split(",")
    if missing := [number for number in chosen if number not in there]:
        raise ClusterLMError(
            f"--gpus {asked}: this machine has no GPU {', '.join(missing)}; "
            f"there are: {', '.join(there) or 'none'}"
        )
    if len(chosen) < num_nodes:
        raise ClusterLMError(
            f"--gpus {asked}: {len(chosen)} GPU here, and {num_nodes} nodes need one each\n"
            "  two ranks cannot share a GPU: take --nodes 1, or --gpus none"
        )
    per_node = min(len(chosen) // num_nodes, wanted or len(chosen))
    return chosen[: per_node * num_nodes]


def _gpus_here(host: Host) -> list[str]:
    done = host.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"])
    if not done.is_ok or not done.out.split():
        words = (done.err or done.out).strip().splitlines()
        raise ClusterLMError(
            "no GPU to be seen on this machine"
            + (f" ({words[0]})" if words else "")
            + "\n  run the dry run on the CPU:  --gpus none"
        )
    return done.out.split()
