"""Checkpoints that can be trusted: written by all ranks, sealed, and only then older ones removed.

A folder without a seal is no checkpoint, so nothing half-written is ever resumed. Order of a save:

    all ranks   nobody is fenced, else all stop
    rank 0      clears what an earlier attempt left half-written under this step
    all ranks   write their parts
    rank 0      looks at the lease again, seals, prunes; the others already train on
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clusterlm.errors import Fenced
from clusterlm.node.progress import Fenced as NodeFenced
from clusterlm.node.progress import refuse_if_fenced
from clusterlm.node.seal import prune, seal
from clusterlm.train.group import Group


def checkpoint_step(folder: Path) -> int:
    """The step in a checkpoint's name: `checkpoint-50` -> 50."""
    return int(folder.name.rpartition("-")[2])


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of a run, as one attempt sees them."""

    root: Path
    attempt: int
    keep: int
    group: Group

    @contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        """Around the writing of one checkpoint, on every rank.

        Raises:
            Fenced: a newer attempt holds the lease; nothing was written, or it stays unsealed.
        """
        folder = self.root / f"checkpoint-{step}"
        self.refuse_if_fenced()
        if self.group.is_first:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, mode=0o700)
        self.group.barrier()
        yield folder
        self.group.barrier()
        if self.group.is_first:
            _look_at_lease()
            seal(folder, step=step, attempt=self.attempt)
            prune(self.root, keep=self.keep)

    def refuse_if_fenced(self) -> None:
        """Stop all ranks when a newer attempt is alive; rank 0 looks.

        Raises:
            Fenced: on every rank.
        """
        found = ""
        if self.group.is_first:
            try:
                _look_at_lease()
            except Fenced as error:
                found = str(error)
        if self.group.any(bool(found)):
            raise Fenced(found or "rank 0 found a newer attempt")


def _look_at_lease() -> None:
    try:
        refuse_if_fenced()
    except NodeFenced as error:
        raise Fenced(str(error)) from None
