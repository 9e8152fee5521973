"""`make chaos`: submits from a laptop over a line that is cut, to a real sshd and a real Slurm.

    python -m tests.chaos.cut_submit [CASES] [--seed N] [--bed INDEX] [--lines N] [--kinds ..]

Each case is one `clusterlm submit` of a project with a file of its own, through a TCP proxy that
breaks the connection one to three times; in each third case the laptop's process is killed too, and
the same command typed again. Each must be one job past the guard, whose id `status` says, within a
minute from when the line could be used again; and over there nothing half-done stays.

    bytes     cut when so many more bytes have passed
    moment    cut at some moment
    stall     for some seconds nothing passes; then it goes on
    refuse    cut, and new connections are refused for some seconds
    forget    open connections hear nothing any more, new ones are made: a router restarted

Then files go there and back and a log is followed over such lines (`cut_files.py`, `cut_logs.py`).

The first break comes up to 0.5 s after the submit has come to one of STAGES, or in the time of a
whole one from its start; the further ones up to 3 s after the one before.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from clusterlm.node.files import read_json, read_jsonl
from clusterlm.paths import RunPaths
from tests.bed.config import BedConfig
from tests.bed.fixture import start_free_bed
from tests.bed.slurm import SlurmBed
from tests.chaos import cut_files, cut_logs
from tests.chaos.cut_cases import KINDS, SENT_BYTES, STAGES, WEIGHTS, Break, Case, plan, table
from tests.chaos.far import BACKENDS, FarCluster, Laptop, far_cluster, laptop

LINES = 4
LONGEST_S = 60.0
GIVEN_UP_S = 420.0
LOG_CUTS = 20
JOB = (
    "name: x\ncluster: openssh\nresources: {nodes: 1, cpus_per_node: 1, time: 5m}\n"
    "train: {command: [/bin/true]}\n"
)


def main() -> None:
    """Run the campaign and print the table; exit 1 when one case is not as it should be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--bed", type=int, help="index of one that is up; default: start one")
    parser.add_argument("--lines", type=int, default=LINES, help="laptops side by side")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of breaks")
    asked = parser.parse_args()
    print(f"{asked.cases} submits over a line that breaks, seed {asked.seed}", flush=True)
    began = time.monotonic()
    weights = [share * (kind in asked.kinds) for kind, share in zip(KINDS, WEIGHTS, strict=True)]
    cases = plan(asked.cases, asked.seed, weights)
    with tempfile.TemporaryDirectory(prefix="clusterlm-cuts-") as folder:
        bed = SlurmBed(BedConfig(asked.bed)) if asked.bed is not None else start_free_bed()
        try:
            with far_cluster(bed, Path(folder)) as far:
                faults = campaign(bed, far, Path(folder), cases, asked.lines)
                faults += others(far, Path(folder), asked.seed)
        finally:
            if asked.bed is None:
                bed.stop()
    print(table(cases))
    print("\n".join(faults))
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(bool(faults) or any(case.faults for case in cases))


def others(far: FarCluster, folder: Path, seed: int) -> list[str]:
    """Files and logs over such lines."""
    faults = []
    with laptop(far, folder / "others") as user:
        for backend in BACKENDS:
            faults += cut_files.go_there(far, user, backend, seed)
            faults += cut_files.come_back(far, user, backend, seed)
            faults += cut_logs.follow(far, user, backend, LOG_CUTS, seed)
    return faults


def campaign(
    bed: SlurmBed, far: FarCluster, folder: Path, cases: list[Case], num_lines: int
) -> list[str]:
    """Play all cases, and look at what is there when all is over; gives what is wrong at large."""
    with ExitStack() as open_lines:
        runs = folder / "runs"
        users = [
            open_lines.enter_context(laptop(far, folder / f"line{number}", runs=runs))
            for number in range(num_lines)
        ]
        with ThreadPoolExecutor(num_lines) as pool:
            lines = [
                pool.submit(_play_all, far, user, cases[number::num_lines])
                for number, user in enumerate(users)
            ]
            for line in lines:
                line.result()
        for user in users:
            user.proxy.cut()
        left = _settle(bed, far)
        _, out, err = users[0].types(folder, "status", "--json")
        rows = {row["run"]: row for row in json.loads(out or "[]")}
        for case in cases:
            judge(far, runs, case, rows.get(case.name, {}))
        if any(not row.get("job_ids") for row in rows.values()):
            left.append(f"status: {err[-300:]}")
        return left


def _settle(bed: SlurmBed, far: FarCluster, limit_s: float = 180) -> list[str]:
    """Wait until nothing runs over there; what stays for ever is a fault."""
    until = time.monotonic() + limit_s
    while bed.run(["squeue", "-h"]).stdout.strip() or far.programs():
        if time.monotonic() > until:
            break
        time.sleep(0.5)
    left = [f"left over there: {path}" for path in far.unfinished()]
    return left + [f"still runs over there: {pid}" for pid in far.programs()]


def _play_all(far: FarCluster, user: Laptop, cases: list[Case]) -> None:
    for case in cases:
        try:
            play(far, user, case)
        except Exception as error:
            case.faults.append(f"{type(error).__name__}: {error}")
        if os.environ.get("CHAOS_TELLS"):
            print(case, flush=True)


def play(far: FarCluster, user: Laptop, case: Case) -> None:
    """Submit, break the line, and ask until there is an answer."""
    project = user.folder / case.name
    project.mkdir()
    (project / "job.yaml").write_text(JOB)
    (project / "weights.bin").write_bytes(os.urandom(SENT_BYTES))
    words = ["submit", "job.yaml", "--cluster", case.backend, "--name", case.name, "--json"]
    say = user.folder / f"{case.name}.said"
    call = user.starts(project, *words, say=say)
    _wait_for_stage(far, user, case, call)
    case.reached = _reached(far, user, case)
    usable_at = time.monotonic()
    for one in case.breaks:
        time.sleep(one.pause_s)
        _break_line(user, one)
        usable_at = time.monotonic()
    if case.kill_s is not None:
        time.sleep(case.kill_s)
        os.killpg(call.pid, signal.SIGKILL)
        call.wait()
        usable_at = time.monotonic()
        case.num_asked += 1
        call = user.starts(project, *words, say=say)
    while call.wait(GIVEN_UP_S) and case.num_asked < 5 and not _is_known(say):
        # what the message says is done: the same command again
        case.num_asked += 1
        case.said.append(say.with_suffix(".err").read_text()[-400:])
        if not _noted(user, case).exists():
            # that is the truth, too: nothing was sent
            case.truth_s = time.monotonic() - max(usable_at, user.proxy.cut_at)
            usable_at = time.monotonic()
        call = user.starts(project, *words, say=say)
    # bytes may have been counted to the end after the last break
    usable_at = max(usable_at, user.proxy.cut_at)
    case.truth_s = max(case.truth_s, time.monotonic() - usable_at)
    answer = read_json(say.with_suffix(".out")) or {}
    case.answer = list((answer.get("job_ids") or {}).values())
    if call.returncode and not _is_known(say):
        case.faults.append(f"no answer: {say.with_suffix('.err').read_text()[-600:]}")
    # what was planned and did not happen is none of the next case
    user.proxy.cut_after(1 << 60)


def _break_line(user: Laptop, one: Break) -> None:
    proxy = user.proxy
    if one.kind == "bytes":
        proxy.cut_after(int(one.size))
    elif one.kind == "moment":
        proxy.cut()
    elif one.kind == "forget":
        proxy.forget()
    elif one.kind == "stall":
        proxy.stall()
        time.sleep(one.size)
        proxy.resume()
    else:
        proxy.refuse()
        proxy.cut()
        time.sleep(one.size)
        proxy.refuse(False)


def _is_known(say: Path) -> bool:
    """A killed submit had come through: the same command says that the run is there."""
    return "exists already on" in say.with_suffix(".err").read_text()


def _wait_for_stage(
    far: FarCluster, user: Laptop, case: Case, call: subprocess.Popen[bytes]
) -> None:
    while call.poll() is None:
        reached = _reached(far, user, case)
        if reached not in STAGES or STAGES.index(reached) >= STAGES.index(case.after):
            return
        time.sleep(0.005)


def _reached(far: FarCluster, user: Laptop, case: Case) -> str:
    run = RunPaths(far.runs / case.name)
    if not run.root.exists():
        return STAGES[1] if _noted(user, case).exists() else STAGES[0]
    if any(e["event"] == "submitted" for e in read_jsonl(run.events)[0]):
        return STAGES[4]
    return STAGES[3] if any(run.submitit.glob("*.sbatch")) else STAGES[2]


def _noted(user: Laptop, case: Case) -> Path:
    """Where the laptop writes the key down, before it sends it."""
    return Path(user.env["CLUSTERLM_RUNS_DIR"]) / ".elsewhere" / f"{case.name}.json"


def judge(far: FarCluster, runs: Path, case: Case, row: dict[str, Any]) -> None:
    """Exactly one training, and everybody says the same of it."""
    run = RunPaths(far.runs / case.name)
    trained = run.root / "trained.txt"
    times = len(trained.read_text().split()) if trained.exists() else 0
    noted = [e["job_id"] for e in read_jsonl(run.events)[0] if e["event"] == "submitted"]
    here = read_json(runs / ".elsewhere" / f"{case.name}.json") or {}
    owners = [
        (read_json(file) or {}).get("job_id") for file in (run.root / "claims").glob("*.json")
    ]
    sent = list(run.submitit.glob("*.sbatch"))
    if times != 1:
        case.faults.append(f"trained {times} times")
    if case.answer and case.answer != noted:
        case.faults.append(f"answered {case.answer}, noted {noted}")
    if row.get("job_ids") != noted or len(noted) != 1:
        case.faults.append(f"status says {row.get('job_ids')} of {noted}")
    if not here.get("is_sent"):
        case.faults.append("the laptop does not know that it was sent")
    if owners != noted or len(sent) != 1:
        case.faults.append(f"claims of {owners}, sent {len(sent)} times")
    if case.truth_s > LONGEST_S:
        case.faults.append(f"known after {case.truth_s:.0f} s")


if __name__ == "__main__":
    main()
