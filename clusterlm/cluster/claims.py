"""Which job prepares which data: two runs that need the same share the one job in flight.

The claim lies beside the cache folder and is read and written under a lock, so that two submits at
once cannot both miss. A claim whose job is gone is void.

A job that also resizes a model has a claim of its own, `<fingerprint>.<model>.claim.json`: who
needs only the data would wait for more, and who needs another model would never get it. Its job
starts when others on the same data have ended, whatever their end, and makes what is not there.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from clusterlm.node.files import read_json, write_json
from clusterlm.paths import PRIVATE_DIR, CachePaths


@dataclass(frozen=True)
class Claim:
    """A preprocess job in flight; it may wait for an array that encodes for it."""

    run: str
    """Run that submitted it and holds its logs."""
    job_id: str
    cluster: str
    submitted: float
    pid_started: float | None = None
    host: str | None = None
    array: str | None = None
    """Job id of that array."""
    tasks: int = 1
    users: list[str] = field(default_factory=list)
    """Runs that wait for it, the owner included."""


@contextmanager
def locked(cache: CachePaths) -> Iterator[None]:
    """Hold the claim's lock; other submits of the same data wait here for a moment."""
    cache.root.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
    with cache.lock.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def live_claim(cache: CachePaths, cluster: str, is_alive: Callable[[Claim], bool]) -> Claim | None:
    """The claim of a job that still waits or runs on the same cluster; call it under the lock."""
    claim = _read(cache.claim)
    return claim if claim and claim.cluster == cluster and is_alive(claim) else None


def other_claim(cache: CachePaths, cluster: str, is_alive: Callable[[Claim], bool]) -> Claim | None:
    """The newest live claim on the same data that goes with another model, or with none."""
    paths = sorted(cache.root.parent.glob(f"{cache.root.name}*.claim.json"))
    found = [claim for path in paths if path != cache.claim and (claim := _read(path))]
    for claim in sorted(found, key=lambda claim: claim.submitted, reverse=True):
        if claim.cluster == cluster and is_alive(claim):
            return claim
    return None


def write_claim(cache: CachePaths, claim: Claim) -> None:
    """Put a claim in place of an older one; call it under the lock."""
    write_json(cache.claim, asdict(claim))


def join(cache: CachePaths, claim: Claim, run: str) -> None:
    """Note that `run` waits for the claim's job too; call it under the lock."""
    # once, also for a submit that was cut off here and goes on
    users = list(dict.fromkeys([*claim.users, run]))
    write_json(cache.claim, {**asdict(claim), "users": users})


def leave(cache: CachePaths, run: str) -> list[str]:
    """Note that `run` no longer waits.

    Returns:
        The runs that still do: their preprocess job must not be cancelled.
    """
    with locked(cache):
        fields = read_json(cache.claim)
        if not fields:
            return []
        users = [u for u in fields.get("users", []) if u != run]
        write_json(cache.claim, {**fields, "users": users})
        return users


def _read(path: Path) -> Claim | None:
    fields = read_json(path)
    try:
        return Claim(**fields) if fields else None
    except TypeError:
        return None


def claim_of(run: str, job_id: str, cluster: str, **further: object) -> Claim:
    """A new claim, its owner its first user."""
    return Claim(run, job_id, cluster, time.time(), users=[run], **further)  # type: ignore[arg-type]
