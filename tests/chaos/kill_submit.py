"""`make chaos`: submits that are killed at random instants, each asked for again with its key.

    python -m tests.chaos.kill_submit [CASES] [--seed N] [--bed INDEX]

On a real Slurm, 200 cases: exactly one job of each passes the guard, and the second call says
which, within a minute. The command, sbatch, the queue and the guard are the true ones; behind the
guard a line in a file stands for the training, so that the campaign takes minutes and not hours.
A process that has imported everything forks each call: a kill falls among the acts of a submit and
not into its imports.

    process   kill -9 of clusterlm; an sbatch that it has started lives on
    session   kill -9 of all that it has started
    slow      session, and sbatch takes its time before and after the job is taken
    lost      process, and sbatch always says `Socket timed out` after the job was taken
    frozen    session, while slurmctld stands still from before sbatch for some seconds

A kill comes up to 0.3 s after the call has come to one of STAGES; from its start, in the time of
a whole call.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from clusterlm.cli.submit import submit
from clusterlm.node.files import read_json, read_jsonl
from clusterlm.paths import RunPaths
from clusterlm.supervise.owner import sent_file
from tests.bed.config import BedConfig
from tests.bed.fixture import start_free_bed
from tests.bed.slurm import SlurmBed

MODES = ("process", "session", "slow", "lost", "frozen")
STAGES = ("nothing yet", "run folder made", "sbatch called", "job noted")
WORKERS = 4
LONGEST_S = 60.0
TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"

STAND_IN = """\
#!{python}
import sys
import submitit.core.submission as submission
from clusterlm.supervise import batch_step

def train(folder):
    with open(folder.parent / "trained.txt", "a") as log:
        log.write("once\\n")

submission.process_job = train
# -u -m clusterlm.supervise.batch_step RUN PHASE TOKEN
batch_step.main(*sys.argv[4:])
"""

SBATCH = """\
#!/bin/bash
pause() {{ sleep 0.$((RANDOM % 4)); }}
case "$SBATCH_CHAOS" in
  slow) pause; {true} "$@" > "$SBATCH_CHAOS_FILE"; code=$?
        pause; cat "$SBATCH_CHAOS_FILE"; exit $code;;
  lost) {true} "$@" > /dev/null; echo "{words}" >&2; exit 1;;
  *) exec {true} "$@";;
esac
"""


@dataclass
class Case:
    """One submit, its kill, and what was there in the end."""

    name: str
    mode: str
    after: str
    """Stage that it is let come to before it is killed."""
    moment_s: float
    """From then."""
    reached: str = ""
    """How far the killed call had come."""
    second_s: float = 0.0
    answer: str = ""
    fault: str = ""


def main() -> None:
    """Run the campaign and print the table; exit 1 when one case is not as it should be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--bed", type=int, help="index of one that is up; default: start one")
    asked = parser.parse_args()
    print(f"{asked.cases} kills, seed {asked.seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clusterlm-chaos-") as folder:
        bed = SlurmBed(BedConfig(asked.bed)) if asked.bed is not None else start_free_bed()
        try:
            cases = campaign(bed, Path(folder), asked.cases, asked.seed)
        finally:
            if asked.bed is None:
                bed.stop()
    print(table(cases))
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(any(case.fault for case in cases))


def campaign(bed: SlurmBed, folder: Path, count: int, seed: int) -> list[Case]:
    """All cases, side by side but for those that freeze the controller for everybody."""
    prepare(bed, folder)
    longest_s = _whole_submit_s(folder)
    dice = random.Random(seed)
    cases = []
    for i in range(count):
        after = STAGES[i // len(MODES) % len(STAGES)]
        moment_s = dice.uniform(0, longest_s if after == STAGES[0] else 0.3)
        cases.append(Case(f"chaos-{i}", MODES[i % len(MODES)], after, moment_s))
    frozen = [case for case in cases if case.mode == "frozen"]
    others = [case for case in cases if case.mode != "frozen"]
    done = [case for part in _side_by_side(bed, folder, others) for case in part]
    done += [play(bed, folder, case) for case in frozen]
    _wait_for_empty_queue(bed)
    return [judge(bed, folder, case) for case in done]


def prepare(bed: SlurmBed, folder: Path) -> None:
    """Programs, and the environment of all calls."""
    programs = folder / "bin"
    programs.mkdir()
    python = sys.executable
    true = bed.run(["which", "sbatch"], check=True).stdout.strip()
    _program(programs / "sbatch", SBATCH.format(true=true, words=TIMED_OUT))
    _program(programs / "stand-in", STAND_IN.format(python=python))
    os.environ.update(bed.env())
    os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
    os.environ["CLUSTERLM_RUNS_DIR"] = str(folder / "runs")
    os.environ["CLUSTERLM_CACHE_DIR"] = str(folder / "cache")
    # what the batch script starts
    sys.executable = str(programs / "stand-in")
    # the first call imports what a submit needs
    (folder / "job.yaml").write_text(
        "name: x\ncluster: slurm\nresources: {nodes: 1, cpus_per_node: 1, time: 5m}\n"
        "train: {command: [/bin/true]}\n"
    )


def _program(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o755)


def _whole_submit_s(folder: Path) -> float:
    """How long a submit takes that nobody kills; one in this process imports everything."""
    with contextlib.redirect_stdout(io.StringIO()):
        submit(folder / "job.yaml", name="warm", key=uuid.uuid4().hex, as_json=True)
    began = time.monotonic()
    for number in range(3):
        case = Case(f"warm-{number}", "process", STAGES[0], 0)
        os.waitpid(_call(folder, case, uuid.uuid4().hex), 0)
    return (time.monotonic() - began) / 3


def _side_by_side(bed: SlurmBed, folder: Path, cases: list[Case]) -> list[list[Case]]:
    pids = []
    for worker in range(WORKERS):
        if (pid := os.fork()) == 0:
            try:
                mine = [play(bed, folder, case) for case in cases[worker::WORKERS]]
                text = json.dumps([asdict(case) for case in mine])
                (folder / f"worker{worker}.json").write_text(text)
            finally:
                os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    files = [folder / f"worker{worker}.json" for worker in range(WORKERS)]
    return [[Case(**fields) for fields in json.loads(file.read_text())] for file in files]


def play(bed: SlurmBed, folder: Path, case: Case) -> Case:
    """Call, kill, call again."""
    key = uuid.uuid4().hex
    pid = _call(folder, case, key)
    if case.mode == "frozen":
        _wait_for_stage(folder, case, key, pid, STAGES[min(1, STAGES.index(case.after))])
        bed.freeze_controller()
    # behind a frozen controller nothing is noted
    after = STAGES[min(2, STAGES.index(case.after))] if case.mode == "frozen" else case.after
    _wait_for_stage(folder, case, key, pid, after)
    time.sleep(case.moment_s)
    _kill(pid, whole_session=case.mode in ("session", "slow", "frozen"))
    case.reached = _reached(folder, case, key)
    if case.mode == "frozen":
        # the second call meets it frozen too
        thaw_at = time.monotonic() + 3.0
    began = time.monotonic()
    pid = _call(folder, case, key)
    if case.mode == "frozen":
        time.sleep(max(0.0, thaw_at - time.monotonic()))
        bed.thaw_controller()
    _, status = os.waitpid(pid, 0)
    case.second_s = time.monotonic() - began
    answer = read_json(folder / f"{case.name}.out") or {}
    case.answer = str(answer.get("job_ids", {}).get("train", ""))
    if status or not case.answer:
        case.fault = f"second call: {(folder / f'{case.name}.err').read_text()[-300:]}"
    return case


def _call(folder: Path, case: Case, key: str) -> int:
    """`clusterlm submit job.yaml --name NAME --key KEY --json` in a session of its own."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setsid()
        # names of this beginning pass on to sbatch
        os.environ["SBATCH_CHAOS"] = case.mode
        os.environ["SBATCH_CHAOS_FILE"] = str(folder / f"{case.name}.{os.getpid()}")
        out = io.StringIO()
        with (folder / f"{case.name}.err").open("a") as err, contextlib.redirect_stderr(err):
            with contextlib.redirect_stdout(out):
                submit(folder / "job.yaml", name=case.name, key=key, as_json=True)
            (folder / f"{case.name}.out").write_text(out.getvalue())
        code = 0
    except BaseException as error:
        with (folder / f"{case.name}.err").open("a") as err:
            err.write(f"{type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def _kill(pid: int, *, whole_session: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if whole_session else os.kill)(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _wait_for_stage(folder: Path, case: Case, key: str, pid: int, stage: str) -> None:
    """Until the call has come so far, or to its end."""
    while _stage(_reached(folder, case, key)) < STAGES.index(stage):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.001)


def _stage(reached: str) -> int:
    return STAGES.index(reached) if reached in STAGES else len(STAGES)


def _reached(folder: Path, case: Case, key: str) -> str:
    runs = folder / "runs"
    run = RunPaths(runs / case.name)
    if (runs / ".submits" / key / "result.json").exists():
        return "result written"
    if any(e["event"] == "submitted" for e in read_jsonl(run.events)[0]):
        return "job noted"
    if sent_file(run, f"{key}-train").exists():
        return "sbatch called"
    return "run folder made" if run.root.exists() else "nothing yet"


def _wait_for_empty_queue(bed: SlurmBed, limit_s: float = 600) -> None:
    until = time.monotonic() + limit_s
    while bed.run(["squeue", "-h"]).stdout.strip():
        if time.monotonic() > until:
            return
        time.sleep(1)


def judge(bed: SlurmBed, folder: Path, case: Case) -> Case:
    """Look at what is there when all is over."""
    run = RunPaths(folder / "runs" / case.name)
    trained = run.root / "trained.txt"
    times = len(trained.read_text().split()) if trained.exists() else 0
    noted = [e["job_id"] for e in read_jsonl(run.events)[0] if e["event"] == "submitted"]
    left = list((folder / "runs").glob(f".{case.name}.*"))
    if times != 1:
        case.fault = f"trained {times} times; {case.fault}"
    elif noted != [case.answer]:
        case.fault = f"noted {noted}, answered {case.answer}; {case.fault}"
    elif left:
        case.fault = f"left {[p.name for p in left]}"
    elif case.second_s > LONGEST_S:
        case.fault = f"second call took {case.second_s:.0f} s"
    jobs = bed.run(["sacct", "-nXP", "--name", f"{case.name}.train", "-o", "JobID"])
    if (many := len(jobs.stdout.split())) > 1:
        case.reached += f" ({many} jobs)"
    return case


def table(cases: list[Case]) -> str:
    """How far the killed calls had come, by mode, and what went wrong."""
    stages = sorted({case.reached for case in cases})
    lines = [f"{'killed when it had':<32}" + "".join(f"{mode:>10}" for mode in MODES)]
    counts = Counter((case.reached, case.mode) for case in cases)
    for stage in stages:
        cells = "".join(f"{counts[stage, mode]:>10}" for mode in MODES)
        lines.append(f"  {stage:<30}{cells}")
    worst = {m: max((c.second_s for c in cases if c.mode == m), default=0) for m in MODES}
    lines.append(f"  {'longest second call, s':<30}" + "".join(f"{worst[m]:>10.1f}" for m in MODES))
    good = sum(not case.fault for case in cases)
    lines.append(f"exactly one training, the right id, nothing left: {good} of {len(cases)}")
    lines += [
        f"  {c.name} ({c.mode}, {c.moment_s:.2f} s, {c.reached}): {c.fault}"
        for c in cases
        if c.fault
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
