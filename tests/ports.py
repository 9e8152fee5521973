"""Ports for what a test starts, when a second worker of pytest does the same at the same moment.

A port that was free a second ago may be somebody's by the time that a rank has imported torch: the
kernel hands out those above 32768 to everybody who connects or asks for any. These lie below, are
given out in turn, and each worker has a stretch of its own.
"""

from __future__ import annotations

import itertools
import os
import socket

# the Slurm beds begin at 26817 (`bed/config.py`)
FIRST, PER_WORKER, WORKERS = 22000, 1000, 4
# gw0, gw1, ..; two sessions on one machine seldom begin at the same place
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
_turns = itertools.count(os.getpid())


def free_port() -> int:
    """One of this machine that nobody listens on, and that no other test gets for a long while."""
    for _ in range(PER_WORKER):
        port = FIRST + _worker * PER_WORKER + next(_turns) % PER_WORKER
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port is free from {FIRST} on")
