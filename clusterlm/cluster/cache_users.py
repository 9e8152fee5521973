"""Which runs use which prepared data, and which are preparing some right now.

A run names its data in lock.json; the claim beside the cache (`claims.py`) names the job that makes
it. In doubt a run is taken for one that has not ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clusterlm.cluster.places import all_runs_dirs
from clusterlm.data.whole import why_not_whole
from clusterlm.errors import DataError
from clusterlm.node.files import read_json
from clusterlm.paths import RunPaths
from clusterlm.weights.resized import key_of


@dataclass(frozen=True)
class Users:
    """Runs by the fingerprint of their data.

    Attributes:
        runs: all of them.
        unfinished: names of those that have not ended.
        preparing: of data that is not ready: the run that prepares it.
        models: keys of the resized models that runs refer to, whether or not they have ended: a
            resume needs its model, and so does who merges an adapter into it.
    """

    runs: dict[str, list[str]] = field(default_factory=dict)
    unfinished: frozenset[str] = frozenset()
    preparing: dict[str, str] = field(default_factory=dict)
    models: frozenset[str] = frozenset()

    def of(self, fingerprint: str) -> list[str]:
        return self.runs.get(fingerprint, [])

    def unfinished_of(self, fingerprint: str) -> list[str]:
        return [run for run in self.of(fingerprint) if run in self.unfinished]


def read_users(cache: Path) -> Users:
    """Look at all runs, and at the claims in a cache folder."""
    runs = _runs()
    for claim in sorted(cache.glob("*.claim.json")) if cache.is_dir() else ():
        fingerprint = claim.name.partition(".")[0]
        for run in _of_claim(claim):
            if run not in runs.setdefault(fingerprint, []):
                runs[fingerprint].append(run)
    unfinished = _unfinished([run for own in runs.values() for run in own])
    preparing = {}
    for fingerprint, own in runs.items():
        alive = [run for run in own if run in unfinished]
        if alive and not _is_ready(cache / fingerprint):
            preparing[fingerprint] = alive[0]
    by_name = {key: sorted(own) for key, own in runs.items()}
    return Users(by_name, unfinished, preparing, _models())


def runs_of(fingerprint: str) -> list[str]:
    """Names of the runs that were submitted with this data."""
    return _runs().get(fingerprint, [])


def refuse_used(fingerprints: Sequence[str], users: Users) -> None:
    """Raise when a run that has not ended uses such data.

    Raises:
        DataError: with the runs.
    """
    rows = [
        f"  {fingerprint[:16]}  {', '.join(alive)}"
        for fingerprint in fingerprints
        if (alive := users.unfinished_of(fingerprint))
    ]
    if rows:
        raise DataError(
            "\n".join(
                [
                    "runs that have not ended use what is to be removed:",
                    *rows,
                    "  cancel them first, or add --force: they will fail",
                ]
            )
        )


def _runs() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for lock in _locks():
        fingerprint = (read_json(lock) or {}).get("fingerprint")
        if isinstance(fingerprint, str) and not lock.parent.name.startswith("."):
            found.setdefault(fingerprint, []).append(lock.parent.name)
    return found


def _models() -> frozenset[str]:
    runs = [lock.parent for lock in _locks()]
    keys = (key_of(RunPaths(run)) for run in runs if not run.name.startswith("."))
    return frozenset(key for key in keys if key)


def _locks() -> list[Path]:
    folders = [folder for folder in all_runs_dirs() if folder.is_dir()]
    return [lock for folder in folders for lock in sorted(folder.glob("*/lock.json"))]


def _of_claim(path: Path) -> list[str]:
    fields = read_json(path) or {}
    users = fields.get("users")
    named = [fields.get("run"), *(users if isinstance(users, list) else [])]
    return [run for run in named if isinstance(run, str) and _is_run(run)]


def _is_run(name: str) -> bool:
    return bool(name) and "/" not in name and any(_runs_there([name]).values())


def _runs_there(names: Iterable[str]) -> dict[Path, list[str]]:
    """Those of the names that are runs, by the folder they lie in."""
    wanted = list(dict.fromkeys(names))
    return {
        folder: [name for name in wanted if (folder / name / "events.jsonl").is_file()]
        for folder in all_runs_dirs()
    }


def _unfinished(runs: Sequence[str]) -> frozenset[str]:
    from clusterlm.cluster.status import read_runs

    there = _runs_there(run for run in runs if run and "/" not in run)
    found = [s for folder, own in there.items() if own for s in read_runs(folder, own)]
    return frozenset(status.run for status in found if not status.state.is_final)


def _is_ready(root: Path) -> bool:
    try:
        return why_not_whole(root) is None
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
