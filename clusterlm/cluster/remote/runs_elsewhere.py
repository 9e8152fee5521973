"""Which cluster a run lives on, and what was last known of it: `<runs_dir>/.elsewhere/<run>.json`.

Written before a submit is sent: whatever happens to the connection, the key of the submit is known
here, and the same key gives the same run.
"""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from clusterlm.cluster.places import all_runs_dirs
from clusterlm.cluster.run_status import RunStatus
from clusterlm.errors import ClusterLMError, RunError
from clusterlm.node.files import read_json, write_json
from clusterlm.paths import PRIVATE_DIR, runs_dir

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Elsewhere:
    """One run.

    Attributes:
        run: its name.
        cluster: name of the profile.
        key: of the submit.
        submitted: time.
        is_sent: the cluster has taken it; else that is not known yet.
        request: digest of what was asked for, so that the same again is known as such.
        job_ids: by phase.
        run_dir: there.
        status: as `status --json` last said.
        seen: when that was.
    """

    run: str
    cluster: str
    key: str
    submitted: float
    is_sent: bool = False
    request: str = ""
    job_ids: dict[str, str] = field(default_factory=dict)
    run_dir: str = ""
    status: dict[str, Any] | None = None
    seen: float | None = None

    @property
    def is_final(self) -> bool:
        return (self.status or {}).get("state") in ("DONE", "STOPPED", "CANCELLED")


def folder() -> Path:
    """Where they lie."""
    return runs_dir() / ".elsewhere"


def remember(one: Elsewhere) -> None:
    """Write it down."""
    folder().mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
    write_json(folder() / f"{one.run}.json", asdict(one))


def forget(run: str) -> None:
    """It was refused, so there is no such run."""
    (folder() / f"{run}.json").unlink(missing_ok=True)


def find_elsewhere(run: str) -> Elsewhere | None:
    """Where a run lives, when it is not a run of this machine."""
    # its own folders are looked up, in clusters.yaml too, only for a name that is known elsewhere
    known = _known(run)
    return None if known is None or _is_here(f"{run}/events.jsonl") else known


def all_elsewhere() -> list[Elsewhere]:
    """Every run that is known to live elsewhere."""
    found = (read_json(path) for path in sorted(folder().glob("*.json")))
    runs = [_read(fields) for fields in found if fields]
    return [one for one in runs if one is not None]


def with_status(one: Elsewhere, status: dict[str, Any]) -> Elsewhere:
    """The same with what the cluster has just said of it."""
    return replace(one, status=status, seen=time.time(), is_sent=True)


def adopt(run: str, cluster: str, status: dict[str, Any]) -> str:
    """Know a run that was sent from another machine.

    Args:
        run: its name, as the cluster says it.
        cluster: where it lies.
        status: as `status --json` said.

    Returns:
        Why commands that name it would mean another run; empty when they mean this one.
    """
    if not _NAME.fullmatch(run):
        return f"{run!r} is no name of a run: left alone"
    if _is_here(run):
        return f"{run} on {cluster}: on this machine the name means a run of its own"
    known = _known(run)
    if known is not None and known.cluster != cluster:
        return f"{run} on {cluster}: on this machine the name means the run on {known.cluster}"
    if known is None:
        known = Elsewhere(run, cluster, key=uuid4().hex, submitted=time.time())
    run_dir = known.run_dir or RunStatus.from_json(status).run_dir
    remember(with_status(replace(known, run_dir=run_dir), status))
    return ""


def as_begun_again(one: Elsewhere, answer: dict[str, Any]) -> Elsewhere:
    """The same after a resume: its last state says nothing any more."""
    job_ids = job_ids_of(answer)
    return replace(one, job_ids=job_ids or one.job_ids, status=None, seen=None, is_sent=True)


def job_ids_of(answer: dict[str, Any]) -> dict[str, str]:
    """Job ids by phase, of what the clusterlm there said."""
    found = answer.get("job_ids")
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def refuse_taken(run: str, cluster: str, request: str) -> Elsewhere | None:
    """Whether the name may be used for a new run on `cluster`.

    Returns:
        The same request that was sent before and whose answer never came: it is asked for again.

    Raises:
        RunError: a run of this machine, or of a cluster, has the name.
    """
    if _is_here(run):
        raise RunError(f"a run named {run} exists already on this machine\n  take another: --name")
    known = _known(run)
    if known is None:
        return None
    if not known.is_sent and known.cluster == cluster:
        if known.request == request:
            return known
        raise RunError(
            f"whether {cluster} has taken an earlier {run} is not known yet\n"
            f"  find out:  clusterlm status {run}"
        )
    raise RunError(
        f"a run named {run} exists already on {known.cluster}\n"
        f"  start another:  --name {_free_name(run)}\n"
        f"  go on with it:  clusterlm resume {run}"
    )


def _known(run: str) -> Elsewhere | None:
    fields = read_json(folder() / f"{run}.json") if _NAME.fullmatch(run) else None
    return _read(fields) if fields else None


def _is_here(path: str) -> bool:
    """Whether it lies in a folder of runs of this machine, also in that of a cluster of its own."""
    return any((place / path).exists() for place in all_runs_dirs())


def _free_name(run: str) -> str:
    number = 2
    while (folder() / f"{run}-{number}.json").exists():
        number += 1
    return f"{run}-{number}"


def _read(fields: dict[str, Any]) -> Elsewhere | None:
    try:
        known = {key: fields[key] for key in Elsewhere.__dataclass_fields__ if key in fields}
        return Elsewhere(**known)
    except (TypeError, ClusterLMError):
        return None
