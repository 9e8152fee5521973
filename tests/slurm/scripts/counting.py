"""A stand-in for a training: counts, checkpoints, obeys. Standard library and clusterlm.node only.

    counting.py STEPS [--pace S] [--save-every N] [--fail-rank R --fail-at STEP --code C] [--once]

The ranks go in step over the network, as in a collective: a lost one stops the others. `--alone`
lets them go on. `--once` fails in the first attempt only. Every rank appends each of its steps to
`<run>/steps-<rank>.txt` as `attempt step`, which is what the tests look at.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from pathlib import Path

from clusterlm.node.codes import EXIT_RESUME
from clusterlm.node.progress import refuse_if_fenced, report_progress, stop_requested
from clusterlm.node.seal import seal

parser = argparse.ArgumentParser()
parser.add_argument("steps", type=int)
parser.add_argument("--pace", type=float, default=0.2)
parser.add_argument("--save-every", type=int, default=10)
parser.add_argument("--fail-rank", type=int, default=-1)
parser.add_argument("--fail-at", type=int, default=0)
parser.add_argument("--code", type=int, default=3)
parser.add_argument("--once", action="store_true")
parser.add_argument("--alone", action="store_true")
asked = parser.parse_args()

rank, attempt = int(os.environ["RANK"]), int(os.environ["CLUSTERLM_ATTEMPT"])
folder = Path(os.environ["CLUSTERLM_CHECKPOINT_DIR"])
resume = os.environ["CLUSTERLM_RESUME_FROM"]
first = int(Path(resume).name.partition("-")[2]) if resume else 0
steps = Path(os.environ["CLUSTERLM_RUN_DIR"]) / f"steps-{rank}.txt"


def meet() -> list[socket.socket]:
    """Rank 0 holds a line to each of the others, they one to it."""
    world = int(os.environ["WORLD_SIZE"])
    place = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]) + 1)
    if asked.alone or world == 1:
        return []
    if rank == 0:
        with socket.create_server(place, backlog=world) as server:
            return [server.accept()[0] for _ in range(world - 1)]
    while True:
        try:
            return [socket.create_connection(place)]
        except ConnectionRefusedError:
            time.sleep(0.1)


def agree(stops: bool) -> bool:
    """Wait for everybody; what rank 0 has seen goes for all."""
    if rank == 0:
        for line in lines:
            line.recv(1) or sys.exit("connection closed by peer")
        for line in lines:
            line.sendall(b"s" if stops else b"g")
        return stops
    for line in lines:
        line.sendall(b".")
        answer = line.recv(1) or sys.exit("connection closed by peer")
        return answer == b"s"
    return stops


def save(step: int) -> None:
    if rank == 0:
        refuse_if_fenced()
        target = folder / f"checkpoint-{step}"
        target.mkdir(exist_ok=True)
        (target / "state.txt").write_text(str(step))
        seal(target, step=step, attempt=attempt)


print(f"rank {rank} of {os.environ['WORLD_SIZE']} starts after step {first}", flush=True)
lines = meet()
for step in range(first + 1, asked.steps + 1):
    time.sleep(asked.pace)
    with steps.open("a") as log:
        log.write(f"{attempt} {step}\n")
    report_progress(step=step, total_steps=asked.steps, loss=1.0 / step)
    fails = rank == asked.fail_rank and step == asked.fail_at and not (asked.once and attempt > 1)
    if fails:
        print(f"rank {rank} gives up on purpose", file=sys.stderr, flush=True)
        sys.exit(asked.code)
    if agree(stop_requested()):
        save(step)
        sys.exit(EXIT_RESUME)
    if step % asked.save_every == 0:
        save(step)
print(f"rank {rank} is done", flush=True)
