"""`clusterlm logs -f` over a line that is cut again and again: each line once, and in its order.

Two ranks of a true run write numbered lines until they have been told that there were enough cuts.
"""

from __future__ import annotations

import random
import re
import time
from collections import defaultdict

from tests.chaos.far import FarCluster, Laptop

SCRIPT = """\
import os, random, sys, time

rank = int(os.environ["RANK"])
dice = random.Random(rank)
stop = os.path.join(os.environ["CLUSTERLM_RUN_DIR"], "enough")
number = 0
while number < 20_000 and not (number % 10 == 0 and os.path.exists(stop)):
    print(f"rank {rank} line {number} {'x' * dice.randrange(120)}", flush=True)
    number += 1
    time.sleep(0.02)
print(f"rank {rank} wrote {number}", flush=True)
"""
LINE = re.compile(r"rank (\d) line (\d+) (x*)$")
JOB = """
name: x
cluster: openssh
resources: {nodes: 2, cpus_per_node: 1, time: 10m}
train: {command: [lines.py]}
"""


def follow(far: FarCluster, user: Laptop, backend: str, num_cuts: int, seed: int) -> list[str]:
    """Submit, follow, cut; gives what is wrong."""
    run = f"lines-{backend}"
    project = user.folder / run
    project.mkdir()
    (project / "job.yaml").write_text(JOB)
    (project / "lines.py").write_text(SCRIPT)
    code, _, err = user.types(
        project, "submit", "job.yaml", "--cluster", backend, "--name", run, "--json"
    )
    if code:
        return [f"{backend}, logs: {err[-300:]}"]
    say = user.folder / f"{run}.said"
    # all lines that were there before
    follower = user.starts(project, "logs", run, "-f", "-n", "100000", say=say)
    out, dice = say.with_suffix(".out"), random.Random(seed)
    began = time.monotonic()
    try:
        for _ in range(num_cuts):
            before = out.stat().st_size
            _wait_until(lambda before=before: out.stat().st_size > before or follower.poll())
            time.sleep(dice.uniform(0, 0.8))
            if dice.random() < 0.5:
                user.proxy.cut()
            else:
                user.proxy.cut_after(dice.randrange(1, 4000))
        (far.runs / run / "enough").touch()
        _wait_until(lambda: follower.poll() is not None)
    finally:
        follower.kill()
        follower.wait()
    took_s = time.monotonic() - began
    faults = _compare(far, run, out.read_text())
    print(
        f"logs -f over {backend}: {num_cuts} cuts, {took_s:.0f} s: {'; '.join(faults) or 'right'}"
    )
    return [f"{backend}, logs: {fault}" for fault in faults]


def _wait_until(is_so: object, limit_s: float = 90) -> None:
    until = time.monotonic() + limit_s
    while not is_so() and time.monotonic() < until:  # type: ignore[operator]
        time.sleep(0.02)


def _compare(far: FarCluster, run: str, shown: str) -> list[str]:
    faults = (
        [] if f"--- {run} is DONE" in shown.splitlines()[-1] else ["it did not come to its end"]
    )
    seen = _by_rank(shown)
    for rank in (0, 1):
        [file] = (far.runs / run).rglob(f"rank{rank}.log")
        written = _by_rank(file.read_text())[rank]
        if seen[rank] != written:
            lost, more = set(written) - set(seen[rank]), len(seen[rank]) - len(set(seen[rank]))
            faults.append(f"rank {rank}: of {len(written)} lines {len(lost)} lost, {more} doubled")
    return faults


def _by_rank(text: str) -> dict[int, list[tuple[int, str]]]:
    found = defaultdict(list)
    for line in text.splitlines():
        if match := LINE.search(line):
            found[int(match[1])].append((int(match[2]), match[3]))
    return found
