"""The data phase on one page: sources -> tokenizer (-> model) -> shards -> what is kept -> blocks.

No process group: a rank that waits for data in a collective would be killed by its timeout.
`run_phase` is what `clusterlm preprocess RUN_DIR` calls; `preprocess` is the same without a run;
`run_task` makes one node's share of the shards and leaves the rest to the others.

Two layers. Tokens are made once and kept in shards (`encoding.py`); everything that is decided
about them afterwards (duplicates, split, mix, block size) is a plan over them that takes seconds
and copies nothing.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clusterlm.data.blocks_stage import prepare_blocks
from clusterlm.data.cache import open_cache
from clusterlm.data.encoding import Task, encode_sources
from clusterlm.data.files import list_files
from clusterlm.data.fingerprint import (
    Parts,
    describe,
    differences,
    fingerprint_of_parts,
    sources_of,
)
from clusterlm.data.model_stage import ModelStage
from clusterlm.data.prepared import PreparedFolder
from clusterlm.data.progress import Progress, Report, RunReporter
from clusterlm.data.reading import Reading, reading_order
from clusterlm.data.summary import summary_of
from clusterlm.data.tokenizer_stage import PreparedTokenizer, prepare_tokenizer
from clusterlm.data.whole import Manifest
from clusterlm.errors import CacheNotReady, DataError
from clusterlm.node.files import read_json
from clusterlm.paths import CachePaths, RunPaths
from clusterlm.spec.data import Data
from clusterlm.spec.job import Job
from clusterlm.spec.units import spoken
from clusterlm.weights.resized import key_of

MAX_NAMED = 5

# EFBIG: a limit on the size of files, as some sites set it
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)

Tell = Callable[[str], None]


def run_phase(run_dir: Path) -> None:
    """Prepare the data of a run, unless it is there already; print what was done.

    Raises:
        DataError: it cannot be prepared, or is no longer what was submitted.
    """
    job, asked, workers = _asked(run_dir)
    root = CachePaths.of(asked).root
    report = RunReporter()
    run = RunPaths(run_dir)
    parts = (read_json(run.lock) or {}).get("fingerprint_parts") or {}
    model = ModelStage(job, key_of(run), parts, root.parent, report, _say)
    with suppress(CacheNotReady):
        open_cache(root, asked)
        print(f"the data is ready: {root}")
        with _limits_in_words(root.parent):
            model.prepare(CachePaths(root).tokenizer)
        return
    started = time.monotonic()
    manifest = preprocess(
        _data_of(job), root, workers=workers, report=report, asked=asked, tell=_say, model=model
    )
    print(summary_of(manifest))
    print(f"prepared in {spoken(time.monotonic() - started)}: {root}", flush=True)


def run_task(run_dir: Path, task: int, tasks: int) -> None:
    """Make the share of one of `tasks` nodes; `run_phase` finds it and does the rest.

    Raises:
        DataError: it cannot be prepared, or is no longer what was submitted.
    """
    job, asked, workers = _asked(run_dir)
    data = _data_of(job)
    cache = CachePaths.of(asked).root.parent
    report = RunReporter()
    with _limits_in_words(cache):
        readings, tokenizer = _start(data, cache, describe(data), report)
        encode_sources(
            data,
            readings,
            tokenizer.folder,
            cache,
            workers=workers,
            report=report,
            tell=_say,
            task=Task(task, tasks),
        )
    print(f"task {task} of {tasks}: its share is done", flush=True)


def preprocess(
    data: Data,
    root: Path,
    *,
    workers: int,
    report: Report,
    asked: str | None = None,
    tell: Tell = lambda line: None,
    model: ModelStage | None = None,
) -> Manifest:
    """Prepare `data` in the folder `root`. The result is the same for any number of workers.

    Args:
        data: what is trained on.
        root: `<cache>/<fingerprint>`; it appears whole or not at all. Shards lie beside it.
        workers: processes that tokenize.
        report: told how far it is, often.
        asked: the fingerprint that the run was submitted with, if there was one.
        tell: gets a line for people now and then.
        model: the model that is to be trained on it, and may have to be resized.

    Returns:
        The manifest of what lies in `root`.

    Raises:
        DataError: a source, a record or the tokenizer cannot be used, nothing is left to train on,
            the sources are no longer those that were asked for, or the disk is full.
    """
    cache = root.parent
    with _limits_in_words(cache):
        report(Progress("looking at the sources"))
        parts = describe(data)
        found = fingerprint_of_parts(parts)
        if asked is not None and asked != found:
            raise DataError(f"the data is not what was submitted: {asked} then, {found} now")
        readings, tokenizer = _start(data, cache, parts, report)
        if model is not None:
            model.prepare(tokenizer.folder)
        shards = encode_sources(
            data, readings, tokenizer.folder, cache, workers=workers, report=report, tell=tell
        )
        with PreparedFolder(root) as folder:
            folder.write_tokenizer(tokenizer.folder)
            manifest = prepare_blocks(
                data, readings, shards, folder, tokenizer.folder, workers=workers, report=report
            )
            if changed := differences(parts, describe(data)):
                raise DataError("the data changed while it was read: " + "; ".join(changed))
            about = {"fingerprint": found, "parts": parts, "tokenizer": tokenizer.about}
            folder.publish(about | manifest)
        return open_cache(root, found).manifest


def usable_workers(asked: int) -> int:
    """Worker processes: what the spec asks for, but no more than this process has cores."""
    return max(1, min(asked, len(os.sched_getaffinity(0))))


def _say(line: str) -> None:
    print(line, flush=True)


def _data_of(job: Job) -> Data:
    """The data section of a job that has one."""
    assert job.data is not None
    return job.data


def _asked(run_dir: Path) -> tuple[Job, str, int]:
    """A run's job, the fingerprint of its data, how many workers; refuses what has changed."""
    paths = RunPaths(run_dir)
    job = Job.model_validate_json(paths.spec.read_text(encoding="utf-8"))
    lock = read_json(paths.lock) or {}
    asked = lock.get("fingerprint")
    if job.data is None or not isinstance(asked, str):
        raise DataError(f"{run_dir}: this run has no data section, so there is nothing to prepare")
    parts = lock.get("fingerprint_parts") or {}
    if not (CachePaths.of(asked).ready).is_file():
        require_unchanged(job.data, asked, parts, since=paths.spec.stat().st_mtime)
    return job, asked, usable_workers(job.resources.preprocess.cpus)


def require_unchanged(data: Data, asked: str, parts: Parts, *, since: float) -> None:
    """Refuse data that is no longer what was submitted, and say what differs.

    Args:
        data: as it is now.
        asked: the fingerprint at submit.
        parts: what `describe` gave at submit; may be empty.
        since: unix time of the submit; source files written later are named.
    """
    now = describe(data)
    if fingerprint_of_parts(now) == asked:
        return
    changed = differences(parts, now) if parts else []
    newer = [
        f"{file.path} was written after the submit"
        for _, source in sources_of(data)
        if source.hub is None
        for file in list_files(source)
        if file.path.stat().st_mtime > since
    ]
    told = [*changed, *newer[:MAX_NAMED]] or ["which part, is not known"]
    raise DataError(
        "the data is no longer what was submitted, so nothing was prepared; submit again\n  "
        + "\n  ".join(told)
    )


def _start(
    data: Data, cache: Path, parts: Parts, report: Report
) -> tuple[list[Reading], PreparedTokenizer]:
    report(Progress("looking at the sources"))
    readings = reading_order(data)
    return readings, prepare_tokenizer(data, readings, parts, cache, report)


@contextmanager
def _limits_in_words(cache: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise DataError(
            "out of memory while preparing the data; raise resources.preprocess.mem"
            " or lower resources.preprocess.cpus"
        ) from error
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DataError(
                f"the disk of {cache} is full ({error.strerror}); what is tokenized stays and is"
                " used again: make room, or set CLUSTERLM_CACHE_DIR to another disk"
            ) from error
        if error.errno in _READ_ONLY and str(error.filename or "").startswith(str(cache)):
            raise DataError(
                f"{error.filename}: cannot be written ({error.strerror}); data is prepared in"
                " CLUSTERLM_CACHE_DIR, so set it to a folder of yours"
            ) from error
        raise
