"""What agents and ranks write down, as values; `docs/architecture.md` lists the files.

Reading trusts nothing: a file that is absent, half or of another version is left out, never raised.
Which record explains an attempt is decided here (`first_failure`); what to do about it is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from clusterlm.node.codes import ENDED_WELL
from clusterlm.node.files import read_json

RecordT = TypeVar("RecordT", bound="Record")


@dataclass(frozen=True)
class Record:
    """A file that holds one JSON object with the fields of the subclass."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls: type[RecordT], raw: dict[str, Any]) -> RecordT:
        """Keys of a newer version are left out.

        Raises:
            ValueError: a field without a default is missing.
        """
        known = fields(cls)
        absent = [f.name for f in known if f.default is MISSING and f.name not in raw]
        if absent:
            raise ValueError(f"{cls.__name__} without {', '.join(absent)}")
        return cls(**{f.name: raw[f.name] for f in known if f.name in raw})

    @classmethod
    def read(cls: type[RecordT], path: Path) -> RecordT | None:
        raw = read_json(path)
        if raw is None:
            return None
        try:
            return cls.from_dict(raw)
        except ValueError:
            return None


@dataclass(frozen=True)
class NodeBeat(Record):
    """`heartbeats/node<r>.json`; judged by `heartbeat.BeatWatch`, not by its time."""

    node_rank: int
    host: str
    pid: int
    beat: int
    time: float
    state: str
    """running, stopping or exited."""
    exit_code: int | None = None


@dataclass(frozen=True)
class RankStart(Record):
    """`heartbeats/rank<k>.json`, written once: where to find a rank's process (py-spy, kill)."""

    rank: int
    local_rank: int
    node_rank: int
    host: str
    pid: int
    child_pid: int
    time: float


@dataclass(frozen=True)
class ExitRecord(Record):
    """`exits/rank<k>.json`: how a rank ended."""

    rank: int
    local_rank: int
    node_rank: int
    host: str
    pid: int
    started: float
    time: float
    code: int | None
    """None when a signal ended it."""
    signal: str | None
    """"SIGKILL", or None."""
    error: str | None = None
    traceback: str | None = None
    log: str = ""
    """Relative to the attempt: paths differ inside and outside a container."""
    ended_by: str | None = None
    """None when it ended by itself; else why we ended it.

    sibling, abort, stop (its time to save was over), launcher (torchrun ended or died), agent
    (tear-down of the node), fence (a newer attempt holds the lease).
    """

    out_of_memory: bool | None = None
    """Of SIGKILL: the kernel has killed here for want of memory; None where that is not known."""

    @property
    def ended_well(self) -> bool:
        """Done, or saved on request."""
        return self.code in ENDED_WELL


@dataclass(frozen=True)
class Progress(Record):
    """`progress.json`: the newest of a phase; any field may be None."""

    phase: str | None = None
    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    tokens_per_s: float | None = None
    eta_s: float | None = None
    text: str | None = None
    time: float | None = None
    tokens_per_s_per_gpu: float | None = None
    mfu: float | None = None
    data_wait: float | None = None
    eval_loss: float | None = None
    perplexity: float | None = None
    evaluated: int | None = None


def read_exits(attempt_dir: Path) -> list[ExitRecord]:
    """Every exit record of the attempt so far, by rank."""
    found = _read_all(ExitRecord, attempt_dir / "exits", "rank*.json")
    return sorted(found, key=lambda record: record.rank)


def read_beats(attempt_dir: Path) -> list[NodeBeat]:
    """The newest heartbeat of each node, by node rank."""
    found = _read_all(NodeBeat, attempt_dir / "heartbeats", "node*.json")
    return sorted(found, key=lambda beat: beat.node_rank)


def read_starts(attempt_dir: Path) -> list[RankStart]:
    """Where each rank runs, by rank."""
    found = _read_all(RankStart, attempt_dir / "heartbeats", "rank*.json")
    return sorted(found, key=lambda start: start.rank)


def first_failure(exits: Iterable[ExitRecord]) -> ExitRecord | None:
    """The failure that explains the others, or None when no rank failed.

    A gang falls together: after one rank has died the others get "connection reset", and what still
    stands is killed by us. So a rank that we ended never explains anything while another one
    failed by itself; among those the earliest counts. `time` is taken the moment the child ends, so
    on one node the order is right to a millisecond; between nodes it is as good as their clocks.
    """
    failures = [record for record in exits if not record.ended_well]
    return min(
        failures,
        key=lambda record: (record.ended_by is not None, record.time, record.rank),
        default=None,
    )


def _read_all(kind: type[RecordT], folder: Path, pattern: str) -> list[RecordT]:
    if not folder.is_dir():
        return []
    found = (kind.read(path) for path in folder.glob(pattern))
    return [record for record in found if record is not None]
