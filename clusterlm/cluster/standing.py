"""How far a training came, and from which checkpoint it goes on."""

from __future__ import annotations

from dataclasses import dataclass

from clusterlm.cluster.run_status import RunStatus
from clusterlm.node.files import read_json
from clusterlm.paths import RunPaths
from clusterlm.supervise import checkpoints
from clusterlm.supervise.causes import State

_TRAINED = (State.STOPPED, State.CANCELLED, State.RETRYING, State.STALLED, State.STOPPING)


@dataclass(frozen=True)
class Standing:
    """Of a training that does not run on as it should. None where nothing has been reached."""

    step: int | None = None
    total_steps: int | None = None
    checkpoint: int | None = None
    """Step of the newest whole checkpoint."""
    by_itself: bool = False
    """The supervisor tries again; else somebody has to resume."""

    @property
    def words(self) -> str:
        """`step 43 of 300; last whole checkpoint: step 40, a resume goes on there`."""
        parts = [f"step {self.step} of {self.total_steps or '?'}"] if self.step is not None else []
        who = "the next attempt" if self.by_itself else "a resume"
        if self.checkpoint is not None:
            parts.append(f"last whole checkpoint: step {self.checkpoint}, {who} goes on there")
        elif self.step is not None:
            parts.append(f"no whole checkpoint yet: {who} begins anew")
        return "; ".join(parts)


def read_standing(run: RunPaths, status: RunStatus) -> Standing:
    """Look at the checkpoints; empty for a run that goes well, or that has not begun to train."""
    if status.state not in _TRAINED or status.phase != "train":
        return Standing()
    train = (read_json(run.spec) or {}).get("train")
    own_script = isinstance(train, dict) and train.get("command") is not None
    return Standing(
        step=status.step,
        total_steps=status.total_steps,
        checkpoint=checkpoints.newest_step(run.checkpoints, own_script=own_script),
        by_itself=status.state in (State.RETRYING, State.STALLED),
    )
