"""Which prepared data somebody means: that of a YAML, of a run, a folder, or a fingerprint."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clusterlm.errors import CacheNotReady, DataError, RunError
from clusterlm.paths import CachePaths, cache_dir

if TYPE_CHECKING:
    from clusterlm.data.fingerprint import Parts
    from clusterlm.spec.data import Data
    from clusterlm.spec.job import Job

MOST_DIFFERENCES = 3

_FINGERPRINT = re.compile(r"[0-9a-f]{4,32}")


@dataclass(frozen=True)
class Target:
    """Prepared data, and what asks for it.

    Attributes:
        name: of the job or run, or the beginning of the fingerprint.
        data: the spec; None where only the data itself was named.
    """

    name: str
    root: Path
    data: Data | None = None


def find_prepared(text: str, overrides: Sequence[str], *, may_be_damaged: bool = False) -> Target:
    """What is meant by `text`.

    Raises:
        ClusterLMError: there is no such file, run or data; or it is not prepared, and is to be.
    """
    path = Path(text)
    if path.is_file() or path.suffix in (".yaml", ".yml") or overrides:
        return _of_job(path, overrides, may_be_damaged)
    if (path / "manifest.json").is_file() or (path / "READY").is_file():
        return Target(path.absolute().name, path.absolute())
    try:
        target = _of_run(text)
    except RunError as error:
        found = _of_fingerprint(text) if _FINGERPRINT.fullmatch(text) else None
        if found is None:
            raise RunError(f"{error}\n  a job is named by its file, such as job.yaml") from error
        return found
    if not may_be_damaged:
        _require_ready(target, None)
    return target


def data_of(job: Job, file: Path) -> Data:
    """The data section of a job.

    Raises:
        DataError: it has none.
    """
    if job.data is None:
        raise DataError(f"{file}: this job has no data section")
    return job.data


def data_of_target(target: Target) -> Data:
    """The spec of prepared data; of a folder, that of a run which uses it.

    Raises:
        DataError: nobody is known who asks for it.
    """
    if target.data is not None:
        return target.data
    from clusterlm.cluster.cache_users import runs_of
    from clusterlm.cluster.places import all_runs_dirs

    for run in runs_of(target.root.name):
        for folder in all_runs_dirs():
            if (data := _spec_of(folder / run)) is not None:
                return data
    raise DataError(f"{target.root}: no run is known that uses it; name the job that does")


def _of_job(path: Path, overrides: Sequence[str], may_be_damaged: bool) -> Target:
    from clusterlm.cli.typed import load
    from clusterlm.data.fingerprint import describe, fingerprint_of_parts

    job = load(path, list(overrides), None).job
    data = data_of(job, path)
    parts = describe(data)
    target = Target(job.name, CachePaths.of(fingerprint_of_parts(parts)).root, data)
    if not (may_be_damaged and target.root.is_dir()):
        _require_ready(target, parts, path)
    return target


def _of_run(text: str) -> Target:
    from clusterlm.cluster.status import find_run
    from clusterlm.node.files import read_json

    run = find_run(text)
    fingerprint = (read_json(run.lock) or {}).get("fingerprint")
    data = _spec_of(run.root)
    if not isinstance(fingerprint, str) or data is None:
        raise DataError(f"run {run.name} has no data section")
    return Target(run.name, CachePaths.of(fingerprint).root, data)


def _of_fingerprint(text: str) -> Target | None:
    from clusterlm.data.looks.store import choose_prepared, read_store

    prepared = read_store(cache_dir(), now=time.time()).prepared
    if not any(one.fingerprint.startswith(text) for one in prepared):
        return None
    one = choose_prepared(prepared, text)
    return Target(one.short, one.root)


def _spec_of(run: Path) -> Data | None:
    from pydantic import ValidationError

    from clusterlm.spec.job import Job

    try:
        return Job.model_validate_json((run / "spec.json").read_text(encoding="utf-8")).data
    except (OSError, ValidationError):
        # a run of another version
        return None


def _require_ready(target: Target, parts: Parts | None, path: Path | None = None) -> None:
    from clusterlm.data.whole import read_manifest

    try:
        read_manifest(target.root, target.root.name)
    except CacheNotReady as error:
        how = f"clusterlm submit {path}" if path else f"clusterlm resume {target.name}"
        what = str(error).removesuffix("; run the preprocess phase first")
        lines = [what, f"  it is prepared by: {how}"]
        raise CacheNotReady("\n".join([*lines, *_nearest(parts or {})])) from error


def _nearest(parts: Parts) -> list[str]:
    """What is prepared and differs in little: most likely it was meant."""
    from clusterlm.data.fingerprint import differences
    from clusterlm.data.looks.store import read_store

    prepared = read_store(cache_dir(), now=time.time()).prepared if parts else []
    known = [(one, one.manifest["parts"]) for one in prepared if one.manifest.get("parts")]
    compared = [(differences(of_it, parts), one) for one, of_it in known]
    near = [(lines, one) for lines, one in compared if 0 < len(lines) <= MOST_DIFFERENCES]
    if not near:
        return []
    lines, one = min(near, key=lambda pair: len(pair[0]))
    return [f"  prepared is {one.short}, which differs in", *(f"    {line}" for line in lines)]
