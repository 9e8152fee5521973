"""`sbatch --test-only`: would this job be taken, and when would it start. Each call uses a job id.

Slurm's estimate (measured on 22.05 and 24.11): it knows of running jobs and of reservations, so a
shorter job may start before a maintenance. Behind waiting jobs it adds up their whole times and
knows nothing of backfill; what fits before them is told by `backfill.py`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from clusterlm.cluster.host import Completed, Host
from clusterlm.cluster.slurm import last_words
from clusterlm.errors import SlurmUnreachable

TIMEOUT_S = 40.0
SOON_S = 120.0
"""An estimate this near means now: schedulers run in rounds."""
# 26.05 writes a word behind the time: `to start at 2026-11-26T03:37:38 a using 2 processors`
_START = re.compile(r"to start at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")
_NODES = re.compile(r" on nodes (\S+)")


@dataclass(frozen=True)
class Estimate:
    """What sbatch says to a job that it does not keep."""

    start: float | None
    """Unix seconds; None: refused, or not known."""
    refusal: str = ""
    nodes: str = ""

    def wait_s(self, now: float) -> float | None:
        """Seconds until it would start; 0.0 for soon."""
        if self.start is None:
            return None
        wait = self.start - now
        return 0.0 if wait <= SOON_S else wait


def parse_estimate(done: Completed) -> Estimate:
    """Read what sbatch said, on whichever stream. Pure."""
    text = f"{done.err}\n{done.out}"
    if match := _START.search(text):
        # standard time format, local time: as `_environ` of the host asks for it
        start = time.mktime(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S"))
        nodes = _NODES.search(text)
        return Estimate(start, nodes=nodes[1] if nodes else "")
    if done.is_ok:
        # taken, in words that are not known
        return Estimate(None)
    return Estimate(None, refusal=last_words(done).removeprefix("allocation failure: "))


def would_start(host: Host, options: Sequence[str], script: str | None = None) -> Estimate:
    """Ask for one job.

    Args:
        host: where sbatch is.
        options: of sbatch; they win over the script's own.
        script: path of a submission file; None for a job that does nothing.

    Raises:
        SlurmUnreachable: no answer.
    """
    what = [script] if script else ["--wrap=true"]
    done = host.run(["sbatch", "--test-only", *options, *what], timeout_s=TIMEOUT_S)
    if done.code is None or re.search(r"contact slurm controller|timed out", done.err, re.I):
        raise SlurmUnreachable(f"sbatch --test-only: {last_words(done)}")
    return parse_estimate(done)
