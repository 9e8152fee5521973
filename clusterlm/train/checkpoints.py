"""Checkpoints that can be trusted: written by all ranks, sealed, and only then older ones removed.

A folder without a seal is no checkpoint, so nothing half-written is ever resumed. Order of a save:

    all ranks   nobody is fenced, else all stop
    rank 0      waits for the seal of the save before
    rank 0      clears what an earlier attempt left half-written under this step
    all ranks   write their parts
    rank 0      looks at the lease again, seals, prunes; the others already train on

Sealing reads every byte again to hash it. With `in_background` a thread does it and rank 0 trains
on as well; hashing releases the GIL. A stop and the end wait for it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterlm.errors import Fenced
from clusterlm.node.files import write_json
from clusterlm.node.progress import Fenced as NodeFenced
from clusterlm.node.progress import refuse_if_fenced
from clusterlm.node.seal import prune, seal
from clusterlm.train.group import Group


def checkpoint_step(folder: Path) -> int:
    """The step in a checkpoint's name: `checkpoint-50` -> 50."""
    return int(folder.name.rpartition("-")[2])


@dataclass(frozen=True)
class Saved:
    """A sealed checkpoint.

    Attributes:
        seconds: from its beginning to the seal.
        stalled: of these, in which rank 0 did not train.
    """

    step: int
    seconds: float
    stalled: float

    @property
    def words(self) -> str:
        still = f" (training stood still {self.stalled:.1f} s)"
        has_trained = self.seconds - self.stalled > 0.05
        return f"saved checkpoint-{self.step} in {self.seconds:.1f} s{still if has_trained else ''}"


class CheckpointStore:
    """The checkpoints of a run, as one attempt sees them."""

    def __init__(
        self,
        root: Path,
        attempt: int,
        keep: int,
        group: Group,
        *,
        in_background: bool = False,
        notes: dict[str, Any] | None = None,
        report: Callable[[Saved], None] = lambda saved: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """What each checkpoint holds and who hears of it.

        Args:
            root: folder of all checkpoints.
            attempt: the number of this attempt.
            keep: whole ones that stay.
            group: all ranks.
            in_background: seal while the training goes on.
            notes: names and contents of JSON files put into each.
            report: called on rank 0 with each that is sealed, perhaps from another thread.
            now: seconds.
        """
        self.root, self.attempt, self.keep, self.group = root, attempt, keep, group
        self._notes = notes or {}
        self._report = report
        self._now = now
        self._thread = ThreadPoolExecutor(1, "seal") if in_background else None
        self._sealing: Future[None] | None = None

    @contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        """Around the writing of one checkpoint, on every rank.

        Raises:
            Fenced: a newer attempt holds the lease; nothing was written, or it stays unsealed.
        """
        began = self._now()
        folder = self.root / f"checkpoint-{step}"
        self.refuse_if_fenced()
        self.finish()
        if self.group.is_first:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, mode=0o700)
            for name, content in self._notes.items():
                write_json(folder / name, content)
        self.group.barrier()
        yield folder
        self.group.barrier()
        if self.group.is_first:
            written = self._now()
            if self._thread is None:
                self._seal(folder, step, began, None)
            else:
                self._sealing = self._thread.submit(self._seal, folder, step, began, written)

    def finish(self) -> None:
        """Wait until the last checkpoint is sealed.

        Raises:
            Fenced: a newer attempt holds the lease, so it stays unsealed.
            SealError: it could not be sealed.
        """
        sealing, self._sealing = self._sealing, None
        if sealing is not None:
            sealing.result()

    def refuse_if_fenced(self) -> None:
        """Stop all ranks when a newer attempt is alive; rank 0 looks.

        Raises:
            Fenced: on every rank.
        """
        found = ""
        if self.group.is_first:
            try:
                look_at_lease()
            except Fenced as error:
                found = str(error)
        if self.group.any(bool(found)):
            raise Fenced(found or "rank 0 found a newer attempt")

    def _seal(self, folder: Path, step: int, began: float, went_on: float | None) -> None:
        look_at_lease()
        seal(folder, step=step, attempt=self.attempt)
        sealed = self._now()
        prune(self.root, keep=self.keep)
        for pattern in ("universal-*", ".universal-*.making"):
            for converted in self.root.glob(pattern):
                # cut anew of an older one for the ranks of this attempt, see `universal.py`
                shutil.rmtree(converted, ignore_errors=True)
        stalled = (sealed if went_on is None else went_on) - began
        self._report(Saved(step, sealed - began, stalled))


def look_at_lease() -> None:
    """Whether this attempt may write.

    Raises:
        Fenced: a newer one holds the lease.
    """
    try:
        refuse_if_fenced()
    except NodeFenced as error:
        raise Fenced(str(error)) from None
