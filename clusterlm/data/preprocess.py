"""The data phase on one page: sources -> tokenizer -> encode -> split -> pack -> cache.

One node, no process group: a rank that waits for data in a collective would be killed by its
timeout. `run_phase` is what `clusterlm preprocess RUN_DIR` calls; `preprocess` is the same without
a run.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

import clusterlm
from clusterlm.data.building import CacheBuilder, TokenStream
from clusterlm.data.cache import open_cache
from clusterlm.data.collect import Collection, Reading, reading_order
from clusterlm.data.encode import EncodeOptions, token_dtype
from clusterlm.data.files import list_files
from clusterlm.data.fingerprint import (
    Parts,
    describe,
    differences,
    fingerprint_of_parts,
    sources_of,
)
from clusterlm.data.plan import plan_splits
from clusterlm.data.progress import Progress, Report, RunReporter
from clusterlm.data.sample import sample_chunks, sample_texts
from clusterlm.data.sources import Chunk, chunks_of
from clusterlm.data.summary import counts_of, dropped_in_words, size_in_words, summary_of
from clusterlm.data.tokenizer import Vocabulary, fetch_tokenizer, load_vocabulary, train_tokenizer
from clusterlm.data.whole import FORMAT, Manifest
from clusterlm.data.workers import encode_chunks
from clusterlm.errors import CacheNotReady, DataError
from clusterlm.node.files import read_json
from clusterlm.paths import CachePaths, RunPaths
from clusterlm.spec.data import Data
from clusterlm.spec.job import Job
from clusterlm.spec.units import spoken

MAX_NAMED = 5

# EFBIG: a limit on the size of files, as some sites set it
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_phase(run_dir: Path) -> None:
    """Prepare the data of a run, unless it is there already; print what was done.

    Raises:
        DataError: it cannot be prepared, or is no longer what was submitted.
    """
    paths = RunPaths(run_dir)
    job = Job.model_validate_json(paths.spec.read_text(encoding="utf-8"))
    data, workers = job.data, usable_workers(job.resources.preprocess.cpus)
    lock = read_json(paths.lock) or {}
    asked = lock.get("fingerprint")
    if data is None or not isinstance(asked, str):
        raise DataError(f"{run_dir}: this run has no data section, so there is nothing to prepare")
    root = CachePaths.of(asked).root
    with suppress(CacheNotReady):
        open_cache(root, asked)
        print(f"the data is ready: {root}")
        return
    report = RunReporter()
    report(Progress("looking at the sources"))
    require_unchanged(
        data, asked, lock.get("fingerprint_parts") or {}, since=paths.spec.stat().st_mtime
    )
    started = time.monotonic()
    manifest = preprocess(data, root, workers=workers, report=report, asked=asked)
    print(summary_of(manifest))
    print(f"prepared in {spoken(time.monotonic() - started)}: {root}")


def preprocess(
    data: Data, root: Path, *, workers: int, report: Report, asked: str | None = None
) -> Manifest:
    """Prepare `data` in the folder `root`. The result is the same for any number of workers.

    Args:
        data: what is trained on.
        root: `<cache>/<fingerprint>`; it appears whole or not at all.
        workers: processes that tokenize.
        report: told how far it is, often.
        asked: the fingerprint that the run was submitted with, if there was one.

    Returns:
        The manifest of what lies in `root`.

    Raises:
        DataError: a source, a record or the tokenizer cannot be used, nothing is left to train on,
            the sources are no longer those that were asked for, or the disk is full.
    """
    with _limits_in_words(root):
        report(Progress("looking at the sources"))
        parts = describe(data)
        found = fingerprint_of_parts(parts)
        if asked is not None and asked != found:
            raise DataError(f"the data is not what was submitted: {asked} then, {found} now")
        with CacheBuilder(root) as builder:
            manifest = _build(data, builder, workers=workers, report=report)
            if changed := differences(parts, describe(data)):
                raise DataError("the data changed while it was read: " + "; ".join(changed))
            return builder.publish({"fingerprint": found, "parts": parts} | manifest)


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
        for file in list_files(source)
        if file.path.stat().st_mtime > since
    ]
    told = [*changed, *newer[:MAX_NAMED]] or ["which part, is not known"]
    raise DataError(
        "the data is no longer what was submitted, so nothing was prepared; submit again\n  "
        + "\n  ".join(told)
    )


def usable_workers(asked: int) -> int:
    """Worker processes: what the spec asks for, but no more than this process has cores."""
    return max(1, min(asked, len(os.sched_getaffinity(0))))


def _build(data: Data, builder: CacheBuilder, *, workers: int, report: Report) -> Manifest:
    readings = reading_order(data)
    chunks = [chunk for i, r in enumerate(readings) for chunk in chunks_of(i, r.files)]
    tokenizer = _prepare_tokenizer(data, readings, chunks, builder.tokenizer, report)
    vocabulary = load_vocabulary(builder.tokenizer)
    if any(reading.is_chat for reading in readings):
        # a template that does not compile is told here, and not by a worker that cannot start
        _ = vocabulary.chat
    with builder.stream(token_dtype(vocabulary.size)) as stream:
        collection = Collection(readings, stream, drop_duplicates=data.dedup.exact)
        options = _options_of(data, readings, builder.tokenizer)
        _encode(chunks, collection, options, workers=workers, report=report)
    _require_documents(readings, collection)
    report(Progress("making blocks"))
    splits = plan_splits(collection.table(), data)
    for name, split in splits.items():
        builder.write_plan(name, split.plan)
    return (
        _about(data, vocabulary, stream)
        | {"tokenizer": tokenizer}
        | counts_of(readings, collection, splits, block_size=data.block_size)
    )


def _prepare_tokenizer(
    data: Data, readings: Sequence[Reading], chunks: Sequence[Chunk], folder: Path, report: Report
) -> Manifest:
    with_chat = any(reading.is_chat for reading in readings)
    if data.tokenizer.train is None:
        report(Progress("loading the tokenizer"))
        fetch_tokenizer(data.tokenizer, folder, with_chat=with_chat)
        return {"name": data.tokenizer.name, "revision": data.tokenizer.revision}
    own = [chunk for chunk in chunks if not readings[chunk.source].is_held_back]
    sampled, max_bytes = sample_chunks(own)
    num_bytes = sum(min(chunk.num_bytes, max_bytes or chunk.num_bytes) for chunk in sampled)
    report(Progress(f"training the tokenizer on {size_in_words(num_bytes)}"))
    texts = sample_texts(sampled, [reading.source for reading in readings], max_bytes)
    train_tokenizer(data.tokenizer, folder, texts, with_chat=with_chat)
    total = sum(chunk.num_bytes for chunk in own)
    return {"trained_on_bytes": num_bytes, "of_bytes": total, "chunks": len(sampled)}


def _options_of(data: Data, readings: Sequence[Reading], tokenizer: Path) -> EncodeOptions:
    return EncodeOptions(
        sources=tuple(reading.source for reading in readings),
        tokenizer=tokenizer,
        block_size=data.block_size,
        overlong=data.overlong,
        on_bad_record=data.on_bad_record,
    )


def _encode(
    chunks: Sequence[Chunk],
    collection: Collection,
    options: EncodeOptions,
    *,
    workers: int,
    report: Report,
) -> None:
    total = sum(chunk.num_bytes for chunk in chunks)
    done = 0
    # looked at only when a worker has room: a source that is full by then is not read on
    wanted = (chunk for chunk in chunks if not collection.is_full(chunk.source))
    for encoded in encode_chunks(options, wanted, workers=workers):
        collection.add(encoded)
        done += encoded.chunk.num_bytes
        text = f"tokenizing {size_in_words(done)} of {size_in_words(total)}"
        report(Progress(text, done, total))


def _require_documents(readings: Sequence[Reading], collection: Collection) -> None:
    """Nothing to train on is an error, also when only all conversations fell away."""
    counts = {
        "conversation": Counter[str](),
        "document": Counter[str](),
        "held back": Counter[str](),
    }
    for reading, found in zip(readings, collection.counts, strict=True):
        kind = "conversation" if reading.is_chat else "document"
        counts["held back" if reading.is_held_back else kind] += found
        counts["held back" if reading.is_held_back else kind]["sources"] += 1
    for what, found in counts.items():
        if found["sources"] and not found["kept"]:
            raise DataError(_nothing_left(what, found))


def _nothing_left(what: str, counts: Counter[str]) -> str:
    left = f"no {what} is left to train on"
    if what == "held back":
        left = "data.validation.sources: nothing is left to validate on"
    reasons = dropped_in_words(counts) or "the files are empty"
    hint = "; is the chat template the right one?" if counts["nothing_to_train"] else ""
    return f"{left}: {counts['documents']} read ({reasons}){hint}"


def _about(data: Data, vocabulary: Vocabulary, stream: TokenStream) -> Manifest:
    versions = {name: importlib.metadata.version(name) for name in ("tokenizers", "numpy")}
    masked_from = stream.position if stream.masked_from is None else stream.masked_from
    return {
        "format": FORMAT,
        "versions": {"clusterlm": clusterlm.__version__, **versions},
        "block_size": data.block_size,
        "packing": data.packing,
        "dtype": np.dtype(token_dtype(vocabulary.size)).name,
        "vocab_size": vocabulary.size,
        "eos_id": vocabulary.eos_id,
        "pad_id": vocabulary.pad_id,
        "stop_ids": vocabulary.stop_ids(with_chat=stream.masked_from is not None),
        "num_tokens": stream.position,
        "masked_from": masked_from,
    }


@contextmanager
def _limits_in_words(root: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise DataError(
            "out of memory while preparing the data; raise resources.preprocess.mem"
            " or lower resources.preprocess.cpus"
        ) from error
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise DataError(
            f"the disk of {root.parent} is full ({error.strerror}): nothing was kept;"
            " make room, or set CLUSTERLM_CACHE_DIR to another disk"
        ) from error
