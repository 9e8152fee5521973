"""Slurm's words for a job, mapped to ours in one table.

Parsed by the first word only: sacct prints "CANCELLED by 1000" and "CANCELLED+". A word that is
not in the table is a state that we do not know, and no failure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


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

# squeue's reasons in words; what is not here is shown as Slurm wrote it
REASONS = {
    "Priority": "jobs with a higher priority wait before it",
    "Resources": "waiting for nodes to become free",
    "Dependency": "waiting for the data phase",
    "DependencyNeverSatisfied": "the data phase failed",
    "BeginTime": "held back until its begin time; after a requeue that is about two minutes",
    "PartitionTimeLimit": "it asks for more time than the partition allows",
    "PartitionNodeLimit": "it asks for more nodes than the partition allows",
    "PartitionConfig": "it asks for more than the partition has",
    "PartitionDown": "the partition is down",
    "ReqNodeNotAvail": "a node it needs is not available",
    "JobHeldUser": "held; release it with: scontrol release ID",
    "JobHeldAdmin": "held by an administrator",
    "QOSMaxJobsPerUserLimit": "the limit of running jobs per user is reached",
    "AssocGrpGRES": "the account's GPU limit is reached",
}


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
    def reason_words(self) -> str:
        """Why it waits, in words."""
        if self.reason in ("", "None", "(null)"):
            return ""
        first = re.split(r"[,(:\s]", self.reason, maxsplit=1)[0]
        return REASONS.get(first, self.reason)


def first_word(state: str) -> str:
    """`CANCELLED by 0` -> `CANCELLED`, `CANCELLED+` -> `CANCELLED`, `NODE_FAIL` as it is."""
    match = re.match(r"\s*([A-Za-z_]+)", state)
    return match[1].upper() if match else "UNKNOWN"
