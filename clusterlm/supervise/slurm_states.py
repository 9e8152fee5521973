"""Slurm's words for a job, mapped to ours in one table.

Parsed by the first word only: sacct prints "CANCELLED by 1000" and "CANCELLED+". A word that is
not in the table is a state that we do not know, and no failure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from clusterlm.supervise.pending import reason_in_words


class Life(Enum):
    """What a Slurm state means for us."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"


_LIFE = {
    Life.WAITING: "PENDING CONFIGURING REQUEUED REQUEUE_HOLD REQUEUE_FED SPECIAL_EXIT "
    "RESV_DEL_HOLD",
    # COMPLETING is still ending: the final word comes with the next look
    Life.RUNNING: "RUNNING COMPLETING SUSPENDED STOPPED RESIZING SIGNALING STAGE_OUT",
    Life.ENDED: "COMPLETED FAILED CANCELLED TIMEOUT NODE_FAIL PREEMPTED OUT_OF_MEMORY BOOT_FAIL "
    "DEADLINE REVOKED LAUNCH_FAILED RECONFIG_FAIL",
}
LIFE_OF_STATE = {state: life for life, states in _LIFE.items() for state in states.split()}


@dataclass(frozen=True)
class JobRow:
    """One job as a scheduler, or the process table, reports it."""

    job_id: str
    state: str
    """First word of the state, upper case."""
    reason: str = ""
    nodes: str = ""
    submit_time: str = ""
    restarts: int = 0
    exit_code: str = ""
    raw_state: str = ""
    source: str = "squeue"
    """squeue, sacct or process: who said it."""
    task: str = ""
    """Of an array: `4`, or `[5-15]` for those that wait; else empty."""
    start_time: str = ""
    """2026-11-26T14:20:00; of a waiting job as expected, empty where Slurm has no plan for it."""

    @property
    def life(self) -> Life:
        return LIFE_OF_STATE.get(self.state, Life.UNKNOWN)

    @property
    def never_satisfied(self) -> bool:
        return self.reason.startswith("DependencyNeverSatisfied")

    @property
    def by_whom(self) -> str:
        """` by uid 1000` when the raw state names who cancelled, else nothing."""
        match = re.search(r"by (\d+)", self.raw_state)
        return f" by uid {match[1]}" if match else ""

    @property
    def start_words(self) -> str:
        """When Slurm expects a waiting job to start, by its clock; empty where it has no plan."""
        match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d", self.start_time)
        # one that was requeued may still have the start before
        if match is None or self.life is not Life.WAITING or self.start_time <= self.submit_time:
            return ""
        return f"Slurm expects it to start on {match[1]} at {match[2]}"

    @property
    def reason_words(self) -> str:
        """Why it waits, in words."""
        return reason_in_words(self.reason)


def first_word(state: str) -> str:
    """`CANCELLED by 0` -> `CANCELLED`, `CANCELLED+` -> `CANCELLED`, `NODE_FAIL` as it is."""
    match = re.match(r"\s*([A-Za-z_]+)", state)
    return match[1].upper() if match else "UNKNOWN"
