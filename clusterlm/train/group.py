"""How ranks agree: a process group of their own for flags and barriers, always over gloo.

Apart from the group that carries gradients: a flag on it would wait for the GPU, and collectives of
ours must not mix with DeepSpeed's. One element over gloo takes some 0.1 ms on a node.
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist

# a rank that is alive answers within seconds; the rest is for slow filesystems and sealing
TIMEOUT = timedelta(minutes=30)


class Group:
    """The ranks of this attempt."""

    def __init__(self, control: dist.ProcessGroup) -> None:
        self._control = control

    @property
    def is_first(self) -> bool:
        return dist.get_rank() == 0

    @property
    def size(self) -> int:
        return dist.get_world_size()

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes; every rank gets the same answer."""
        votes = torch.tensor([int(flag)])
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self._control)
        return bool(votes.item())

    def gather(self, text: str) -> list[str]:
        """What each rank says, by rank, on every rank."""
        said: list[str | None] = [None] * self.size
        dist.all_gather_object(said, text, group=self._control)
        return [str(text) for text in said]

    def gather_numbers(self, numbers: list[float]) -> list[list[float]]:
        """The numbers of each rank, equally many, by rank; on every rank."""
        own = torch.tensor(numbers, dtype=torch.float64)
        all_of_them = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(all_of_them, own, group=self._control)
        return [row.tolist() for row in all_of_them]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        dist.barrier(group=self._control)


def join_group(*, on_cpu: bool, local_rank: int, timeout_s: int | None = None) -> Group:
    """Enter the process group that torchrun wired; transformers and DeepSpeed then use it.

    `timeout_s` is the longest that a collective may take; transformers' ddp_timeout would come too
    late, for the group is there before its arguments.
    """
    timeout = TIMEOUT if timeout_s is None else timedelta(seconds=timeout_s)
    for name, alone in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        os.environ.setdefault(name, alone)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "0")
    if on_cpu:
        dist.init_process_group("gloo", timeout=timeout)
    else:
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", timeout=timeout, device_id=device)
    return Group(dist.new_group(backend="gloo", timeout=TIMEOUT))


def leave_group() -> None:
    """Leave in order; only after success, for a failed peer would be waited for."""
    if dist.is_initialized():
        dist.destroy_process_group()
