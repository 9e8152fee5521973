"""The directory of a run: filled aside, then renamed: its name is taken once and it is whole."""

from __future__ import annotations

import json
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterlm import __version__
from clusterlm.cluster.remote.git import code_of_run
from clusterlm.cluster.secret_values import find_secrets
from clusterlm.container import Container
from clusterlm.data.fingerprint import fingerprint_of_parts
from clusterlm.errors import ClusterLMError, RunError
from clusterlm.node.files import read_jsonl, write_atomically, write_json
from clusterlm.node.private import NotPrivate, refuse_open_folder, refuse_open_parent
from clusterlm.paths import PRIVATE_DIR, RunPaths, cache_dir
from clusterlm.render import render_run
from clusterlm.spec.job import Job
from clusterlm.spec.load import LoadedJob
from clusterlm.supervise.history import record
from clusterlm.weights.resized import KEY_IN_LOCK

SHORTEST_IN_A_JOB = 8
"""A shorter secret may be the word that it is in a job by chance."""


@dataclass(frozen=True)
class Resolved:
    """What a run is made from, when everything that it names has been looked up.

    Attributes:
        loaded: the job.
        secrets: values by name; they go to a file of their own, mode 0600.
        parts: what the fingerprint of the data is made of; None without data.
        container: what the phases run in; None for the current Python.
        image: what is known of the container's image, for lock.json.
        model_key: of the resized model that it needs.
    """

    loaded: LoadedJob
    secrets: dict[str, str]
    parts: dict[str, Any] | None
    container: Container | None = None
    image: dict[str, Any] | None = None
    model_key: str | None = None

    @property
    def job(self) -> Job:
        return self.loaded.job

    @property
    def fingerprint(self) -> str | None:
        return fingerprint_of_parts(self.parts) if self.parts else None


def make_run_folder(run: RunPaths, resolved: Resolved, key: str) -> None:
    """Make the folder of a new run; a kill at any moment leaves it whole or not at all.

    Args:
        run: the run.
        resolved: what it is made from.
        key: of the submit: another call with it goes on with this folder.

    Raises:
        RunError: the name is taken, perhaps in this very moment.
    """
    run.root.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
    refuse_open_runs_dir(run)
    remove_left_overs(run, key)
    aside = RunPaths(_aside(run, key, uuid.uuid4().hex[:12]))
    try:
        for folder in (aside.root, aside.submitit, aside.checkpoints):
            folder.mkdir(mode=PRIVATE_DIR)
        fill_run_folder(run, resolved, where=aside)
        cluster = resolved.job.cluster
        record(aside, "created", run=run.name, cluster=cluster, version=__version__, key=key)
        try:
            # a folder is not renamed over another that holds something: of two submits one gets it
            aside.root.rename(run.root)
        except OSError:
            refuse_taken_name(run)
            raise
    finally:
        shutil.rmtree(aside.root, ignore_errors=True)


def is_of_key(run: RunPaths, key: str) -> bool:
    """Whether an earlier call of this very submit has made the folder."""
    created = next((e for e in read_jsonl(run.events)[0] if e.get("event") == "created"), {})
    return created.get("key") == key


def remove_run_folder(run: RunPaths, key: str) -> None:
    """Take the folder of a refused submit away: its name is free at once, or the folder whole."""
    aside = _aside(run, key, "refused")
    try:
        run.root.rename(aside)
    except OSError:
        aside = run.root
    shutil.rmtree(aside, ignore_errors=True)


def remove_left_overs(run: RunPaths, key: str) -> None:
    """What calls with this key left aside when they were killed."""
    for aside in run.root.parent.glob(_aside(run, key, "*").name):
        shutil.rmtree(aside, ignore_errors=True)


def _aside(run: RunPaths, key: str, rest: str) -> Path:
    return run.root.with_name(f".{run.name}.{key}.{rest}")


def fill_run_folder(run: RunPaths, resolved: Resolved, *, where: RunPaths | None = None) -> None:
    """Write what was asked for and what nodes run.

    Args:
        run: the run; the rendered files name its folder.
        resolved: what it is made from.
        where: folder to write to, when it is not yet that of the run.
    """
    to, job = where or run, resolved.job
    code, diff = code_of_run(resolved.loaded.path)
    write_atomically(to.job_yaml, resolved.loaded.text)
    write_atomically(to.spec, spec_text(job))
    fields = {
        "version": __version__,
        "python": sys.executable,
        "cluster": job.cluster,
        "image": resolved.image,
        "fingerprint": resolved.fingerprint,
        # if a source changes while the job waits, the data phase can say which
        "fingerprint_parts": resolved.parts,
        KEY_IN_LOCK: resolved.model_key,
        "cache_dir": str(cache_dir()),
        "job_yaml": str(resolved.loaded.path),
        # commit, changes, digest of what was sent to a cluster; the diff lies beside
        "code": code,
        "time": time.time(),
    }
    write_json(to.lock, fields)
    if diff:
        write_atomically(to.code_diff, diff)
    if resolved.secrets:
        write_json(to.secrets, resolved.secrets)
    write_node_files(run, job, resolved.fingerprint, resolved.container, where=to)


def write_node_files(
    run: RunPaths,
    job: Job,
    fingerprint: str | None,
    container: Container | None,
    *,
    where: RunPaths | None = None,
) -> None:
    """Write what nodes run, and what starts it in a container."""
    for name, text in render_run(job, run, fingerprint, container).items():
        mode = 0o700 if name.endswith(".sh") else 0o600
        write_atomically((where or run).root / name, text, mode=mode)


def refuse_open_runs_dir(run: RunPaths) -> None:
    """Where another user could exchange the run's folder, its pickles would run their code.

    Raises:
        RunError: with what to do.
    """
    if run.root.parent.exists():
        _trusted(lambda: refuse_open_parent(run.root.parent))


def refuse_open_run(run: RunPaths) -> None:
    """As `refuse_open_runs_dir`, of a run that is there: nobody else may write into it.

    Raises:
        RunError: with what to do.
    """
    _trusted(lambda: refuse_open_folder(run.root))
    if run.submitit.exists():
        _trusted(lambda: refuse_open_folder(run.submitit))


def _trusted(look: Callable[[], None]) -> None:
    try:
        look()
    except NotPrivate as error:
        raise RunError(f"runs lie in a folder that others can change\n  {error}") from None


def refuse_taken_name(run: RunPaths) -> None:
    """A run directory is written once; a second training under one name would destroy the first."""
    if run.root.exists():
        raise RunError(
            f"a run named {run.name} exists already ({run.root})\n"
            f"  start another:  --name {free_name(run)}\n"
            f"  go on with it:  clusterlm resume {run.name}"
        )


def free_name(run: RunPaths) -> str:
    """The first of NAME-2, NAME-3, ... that is free."""
    number = 2
    while run.root.with_name(f"{run.name}-{number}").exists():
        number += 1
    return f"{run.name}-{number}"


def secret_values(job: Job) -> dict[str, str]:
    """The values of the job's secrets.

    Raises:
        ClusterLMError: one is nowhere, or stands in the job too.
    """
    values = find_secrets(job.secrets, "secrets")
    for place, text in _texts(job.model_dump(mode="json", by_alias=True)):
        for name, value in values.items():
            if len(value) >= SHORTEST_IN_A_JOB and value in text:
                raise ClusterLMError(
                    f"{place} holds the value of the secret {name}: it would stand in scripts and "
                    f"in argv, where others can read it\n"
                    f"  leave it out there; the job finds it in its environment, as ${name}"
                )
    return values


def _texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a tree, keys too, with its place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield place or "the job", str(key)
            yield from _texts(item, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, f"{place}[{number}]")


def spec_text(job: Job) -> str:
    """The resolved spec as `spec.json` holds it."""
    return json.dumps(job.model_dump(mode="json", by_alias=True), indent=2) + "\n"
