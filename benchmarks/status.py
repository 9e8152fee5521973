"""`clusterlm status` over 1,000 recorded runs, 200 of them live, against its one squeue."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.on_bed import Place, bed
from benchmarks.pairs import time_in_turn

RUNS, LIVE = 1000, 200


def _make_runs(place: Place) -> list[str]:
    """Write the records; the live ones point at jobs that wait in the queue."""
    ids = []
    for number in range(RUNS):
        run = place.folder / "runs" / f"run-{number:04}"
        run.mkdir(parents=True, mode=0o700)
        now = time.time()
        events = [{"time": now, "event": "created", "run": run.name, "cluster": "slurm"}]
        if number < LIVE:
            sent = place.bed.run(["sbatch", "--parsable", "--hold", "--wrap", "true"], check=True)
            ids.append(sent.stdout.strip())
            fields = {"phase": "train", "job_id": ids[-1], "cluster": "slurm"}
            events.append({"time": now, "event": "submitted", **fields})
        else:
            fields = {"phase": "train", "state": "DONE", "cause": "DONE", "evidence": "done"}
            events.append({"time": now, "event": "ended", **fields})
        (run / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    return ids


def main() -> None:
    """Print the table."""
    with bed() as place:
        ids = _make_runs(place)
        before = place.bed.sdiag_rpcs()
        clusterlm = str(Path(sys.executable).with_name("clusterlm"))
        squeue = ["squeue", "-h", "-t", "all", "-j", ",".join(ids), "-O", "jobid,state,reason"]
        commands = {
            "squeue of 200 jobs": squeue,
            "status --json, 1000 runs": [clusterlm, "status", "--json"],
            "status --all, 1000 runs": [clusterlm, "status", "--all"],
        }
        rows = time_in_turn(commands, rounds=11, env=place.env)
        calls = {k: v - before.get(k, 0) for k, v in place.bed.sdiag_rpcs().items()}
    limit_s = 1.5 * rows[0].median_s + 0.5
    print(
        f"\nstatus over {RUNS} runs, {LIVE} live"
        f"   (goal: 1.5 x squeue + 500 ms = {limit_s * 1e3:.0f} ms)"
    )
    for row in rows:
        print(f"  {row.name:<30}{row.median_s * 1000:>8.0f} ms")
    print(f"  scheduler calls over all of it: { {k: v for k, v in calls.items() if v} }")


if __name__ == "__main__":
    main()
