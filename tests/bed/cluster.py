"""What one can ask a cluster: every question is one call of Slurm's own clients."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bed import programs
from tests.bed.config import BedConfig
from tests.bed.waiting import PATIENCE, BedError, wait_until

# sdiag:         REQUEST_PARTITION_INFO                  ( 2009) count:2      ave_time:93 ..
# sacctmgr:      DBD_GET_JOBS_COND             ( 1444) count:4      ave_time:1181 ..
RPC_LINE = re.compile(r"^\s*([A-Z_]+)\s*\(\s*\d+\)\s*count:(\d+)", re.MULTILINE)
# From these a job does not go on by itself; NODE_FAIL may still be requeued.
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "gone"}


class Cluster:
    """The client side of a bed; needs it to be up."""

    def __init__(self, config: BedConfig) -> None:
        """Nothing is asked yet."""
        self.config = config

    @property
    def nodes(self) -> list[str]:
        """node1, node2, ..: Slurm's names, and host names inside the bed."""
        return self.config.nodes

    def env(self) -> dict[str, str]:
        """A whole environment for subprocesses: ours, with SLURM_CONF and the daemons on PATH."""
        return programs.client_env(self.config)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 60,
        stdin: str = "",
        cwd: Path | None = None,
        check: bool = False,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program on the machine, as a user of the cluster would.

        Raises:
            BedError: with `check`, it did not exit 0.
        """
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            env=self.env(),
        )
        if check and done.returncode:
            raise BedError(f"{' '.join(argv)} (exit {done.returncode}): {done.stderr.strip()}")
        return done

    def job(self, job_id: str | int) -> dict[str, str]:
        """`scontrol show job` as a dict; empty if the controller knows no such job."""
        shown = self.run(["scontrol", "show", "job", "--oneliner", str(job_id)])
        if shown.returncode:
            return {}
        # Values may hold blanks (a path) and "=" (TRES=cpu=2): split before " Word=" alone.
        parts = re.split(r"\s+(?=[A-Za-z_/:]+=)", shown.stdout.splitlines()[0].strip())
        return dict(part.split("=", 1) for part in parts if "=" in part)

    def wait_for_state(self, job_id: str | int, *states: str, timeout: float = 30) -> str:
        """Wait until JobState is one of `states` (RUNNING, COMPLETED, ..); returns it.

        Raises:
            BedError: it did not become so in time, or the job ended in another state.
        """
        seen = ""

        def is_so() -> bool:
            nonlocal seen
            seen = self.job(job_id).get("JobState", "gone")
            return seen in states or seen in ENDED

        try:
            wait_until(
                is_so, timeout_s=timeout * PATIENCE, what=f"job {job_id} is {' or '.join(states)}"
            )
        except BedError as error:
            raise BedError(f"{error}; it is {seen}") from error
        if seen not in states:
            raise BedError(f"job {job_id} should become {' or '.join(states)} but is {seen}")
        return seen

    def node_states(self) -> dict[str, str]:
        """As sinfo prints them: idle, mixed, down*, ..; a star means that the node is silent."""
        shown = self.run(["sinfo", "-h", "-N", "-p", "batch", "-o", "%N %T"], check=True)
        return dict(line.split() for line in shown.stdout.splitlines())

    def sdiag_rpcs(self) -> dict[str, int]:
        """Requests at slurmctld by type since its start, without those of sdiag itself.

        The nodes' own are in it: MESSAGE_NODE_REGISTRATION_STATUS, REQUEST_COMPLETE_BATCH_SCRIPT
        and the like. Compare two calls to learn what a client cost.
        """
        counts = _count_by_message_type(self.run(["sdiag"], check=True).stdout)
        counts.pop("REQUEST_STATS_INFO", None)
        return counts

    def dbd_rpcs(self) -> dict[str, int]:
        """Requests at slurmdbd by type since its start; one sacct is one DBD_GET_JOBS_COND."""
        shown = self.run(["sacctmgr", "show", "stats"], check=True)
        counts = _count_by_message_type(shown.stdout)
        counts.pop("DBD_GET_STATS", None)
        return counts


def _count_by_message_type(text: str) -> dict[str, int]:
    return {name: int(count) for name, count in RPC_LINE.findall(text)}
