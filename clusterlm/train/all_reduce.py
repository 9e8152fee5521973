"""How fast do these ranks exchange gradients: all-reduces for some seconds, one line of JSON.

`torchrun ... --module clusterlm.train.all_reduce`, as doctor's test of two nodes starts it. The bus
bandwidth is that of NCCL's own tests: what each rank moves, 2 (n-1)/n bytes a byte, by the time.
"""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from clusterlm.node.interface import interface_towards

MARK = "CLUSTERLM-TEST "
SECONDS = 10.0
JOIN_S = 60
WARM_UP = 2
BYTES = {"nccl": 512 * 2**20, "gloo": 32 * 2**20}


def main() -> None:
    """Join, measure, print on rank 0."""
    backend = _join()
    on_gpu = backend == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    data = torch.ones(BYTES[backend] // 4, device=device)
    for _ in range(WARM_UP):
        dist.all_reduce(data)
    took = _seconds_each(data)
    ranks = dist.get_world_size()
    # sums of ones: rank 0 knows what must have come out
    data.fill_(1.0)
    dist.all_reduce(data)
    is_right = bool((data == ranks).all())
    if dist.get_rank() == 0:
        moved = 2 * (ranks - 1) / ranks * BYTES[backend]
        fields = {
            "ok": is_right,
            "backend": backend,
            "ranks": ranks,
            "seconds": took,
            "gb_per_s": moved / took / 1e9,
            "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        }
        print(f"{MARK}{json.dumps(fields)}", flush=True)
    dist.destroy_process_group()


def _join() -> str:
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    elif interface := interface_towards(os.environ["MASTER_ADDR"]):
        # by itself gloo takes what the own name leads to: loopback, on many systems
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    dist.init_process_group(backend, timeout=timedelta(seconds=JOIN_S))
    return backend


def _seconds_each(data: torch.Tensor) -> float:
    """Mean time of an all-reduce; rank 0 decides when it is enough."""
    began, count = time.monotonic(), 0
    goes_on = torch.ones(1, device=data.device)
    while goes_on.item():
        for _ in range(3):
            dist.all_reduce(data)
            count += 1
        goes_on.fill_(float(time.monotonic() - began < SECONDS))
        dist.broadcast(goes_on, 0)
    return (time.monotonic() - began) / count


if __name__ == "__main__":
    main()
