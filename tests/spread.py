"""What runs beside what, where pytest has several workers (`pytest -n 2`, pytest-xdist).

The tests of Slurm, Docker and node agents wait most of their time, those of the trainer compute. So
files stand in one row, from the waiting to the computing ones. Every other worker takes from its
front, the rest from its end, until they meet among the many quick ones:

    gw0 ->  containers/ + images/  slurm/  bed/  node/  ..  data/  spec/  ..  train/  <- gw1

A file stays with one worker, and so do its fixtures. All that may use Docker is one piece: a second
daemon would find the storage taken, and build its base images anew. It comes first, as it cannot be
shared at the end; Slurm's files can, for beds stand side by side.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

DOCKER = ("containers", "images")
WAITING = (*DOCKER, "slurm", "versions", "bed", "test_local.py", "node")
COMPUTING = ("weights", "train")


class Spread(LoadScopeScheduling):
    """Files as pieces of work, in a row that the workers take from both ends."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        # not the file with most tests first
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return DOCKER[0] if _room(nodeid) in DOCKER else nodeid.partition("::")[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        # gw0, gw1, ..
        if int(node.gateway.id.removeprefix("gw")) % 2:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)


def place_in_row(nodeid: str) -> int:
    """From the waiting to the computing files; equal ones keep the order in which they came."""
    room = _room(nodeid)
    if room in WAITING:
        return WAITING.index(room)
    return len(WAITING) + (1 + COMPUTING.index(room) if room in COMPUTING else 0)


def _room(nodeid: str) -> str:
    """tests/slurm/test_chain.py::test_x -> slurm, tests/test_local.py::test_x -> test_local.py."""
    return nodeid.partition("::")[0].split("/")[1]
