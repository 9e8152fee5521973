"""`clusterlm submit` until the id is known, against a bare `sbatch --wrap`."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.on_bed import bed

ROUNDS = 9


def main() -> None:
    """Print the table."""
    clusterlm = str(Path(sys.executable).with_name("clusterlm"))
    bare, ours = [], []
    with bed() as place:
        for node in place.bed.config.nodes:
            # nothing is to run beside the measurement
            place.bed.drain(node)
        job = place.folder / "job.yaml"
        job.write_text("name: x\ncluster: slurm\ntrain: {command: [/bin/true]}\n")
        for number in itertools.islice(itertools.count(), ROUNDS + 1):
            submit = [clusterlm, "submit", str(job), "--name", f"bench-{number}"]
            for argv, times in ((["sbatch", "--wrap", "true"], bare), (submit, ours)):
                began = time.perf_counter()
                subprocess.run(argv, env=place.env, check=True, capture_output=True)
                times.append(time.perf_counter() - began)
    ratio = statistics.median(b / a for a, b in zip(bare[1:], ours[1:], strict=True))
    print("\nSubmit until the job id is known   (goal: 60 x a bare sbatch, or less)")
    print(f"  sbatch --wrap true      {statistics.median(bare[1:]) * 1000:>7.1f} ms")
    print(
        f"  clusterlm submit        {statistics.median(ours[1:]) * 1000:>7.1f} ms"
        f"   ratio {ratio:.0f}"
    )


if __name__ == "__main__":
    main()
