"""What `judge` is given and what it gives: values, nothing that acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from clusterlm.node.records import ExitRecord
from clusterlm.supervise.causes import Cause, State
from clusterlm.supervise.history import History
from clusterlm.supervise.slurm_states import JobRow


class Action(str, Enum):
    """What the supervisor does next."""

    FINISH = "finish"
    RETRY = "retry"
    REQUEUE = "requeue"
    STOP = "stop"


@dataclass(frozen=True)
class AttemptView:
    """What the supervisor sees of one attempt at one moment."""

    exits: Sequence[ExitRecord] = ()
    expected_ranks: int = 1
    step_code: int | None = None
    """Exit code of srun (or of the script); None while it runs."""
    step_tail: str = ""
    """Last lines of step.log, for failures before any rank lived."""
    nodes: Sequence[str] = ()
    """Hosts by srun's label; empty when the step's lines bear none."""
    stop_reason: str | None = None
    silent: dict[str, float] = field(default_factory=dict)
    """Hosts whose heartbeat has not changed for longer than the limit, with the seconds."""
    started_s_ago: float = 0.0
    ranks_seen: int = 0
    failed_s_ago: float = 0.0
    """Seconds since the first failed rank was seen."""
    step_s_ago: float | None = None
    """Seconds since the training step last changed; None before the first."""
    usual_step_s: float | None = None
    startup_timeout_s: float = 1800.0
    hang_after_s: float | None = None
    """None: 20 times the usual step, at least 10 minutes."""


@dataclass(frozen=True)
class Finding:
    """Why an attempt is over."""

    cause: Cause
    evidence: str
    rank: int | None = None
    host: str | None = None
    code: int | None = None
    signal: str | None = None
    error: str | None = None
    bad_hosts: tuple[str, ...] = ()
    """Nodes that the next attempt leaves out."""


@dataclass(frozen=True)
class PastAttempt:
    """An earlier attempt of the same phase, since the last submit or resume."""

    cause: Cause
    newest_step: int | None


@dataclass(frozen=True)
class Left:
    """What is left to go on with."""

    healthy_nodes: int
    wanted_nodes: int
    least_nodes: int
    may_requeue: bool
    newest_step: int | None = None
    """Newest verified checkpoint now."""
    max_without_progress: int = 3


@dataclass(frozen=True)
class Verdict:
    """A state, why, on what evidence, and what follows."""

    state: State
    cause: Cause | None = None
    evidence: str = ""
    action: Action | None = None
    finding: Finding | None = None
    blind_since_s: float | None = None


@dataclass(frozen=True)
class RunView:
    """What a reader sees of a run at one moment."""

    history: History
    supervisor_s_ago: float | None = None
    """Age of supervisor.json; None when it was never written for the current job."""
    supervisor_host: str | None = None
    silent: dict[str, float] = field(default_factory=dict)
    """Hosts without a fresh heartbeat, as the supervisor sees it, with the seconds."""
    progress_step: int | None = None
    tasks: str = ""
    """`3 of 16 tasks done`, while the array encodes."""
    task_failure: dict[str, Any] | None = None
    """Event that one of them is just now tried again after."""
    all_ranks_done: bool = False
    """Every rank of the newest attempt has recorded a good end."""
    row: JobRow | None = None
    """Row of the job that matters now; None: not asked, or the scheduler does not know it."""
    row_phase: str | None = None
    """Phase of that job."""
    row_is_blind: bool = False
    """The scheduler was asked and did not answer."""
    row_s_ago: float = 0.0
    now: float = 0.0
