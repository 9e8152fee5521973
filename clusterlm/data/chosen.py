"""Which documents are kept: no duplicate, no near duplicate, none that gives the validation away.

All of it works on what is stored and drops rows of the table; no token is copied. What it finds for
the same shards and settings is remembered in `<cache>/chosen/`, so that another block size, split
or mix need not look again.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from clusterlm.data.alike.contaminated import ValidationIndex, contaminated, index_validation
from clusterlm.data.alike.near import near_duplicates, similarities_of
from clusterlm.data.alike.shingles import shingles_of
from clusterlm.data.alike.signatures import Signatures, signatures_of
from clusterlm.data.dedup import first_occurrences
from clusterlm.data.looks.cache_names import CHOSEN, chosen_prefix
from clusterlm.data.progress import Progress, Report
from clusterlm.data.split import split_documents
from clusterlm.data.store.documents import Mask, Numbers
from clusterlm.data.store.shard_files import Shard, ShardFiles
from clusterlm.data.store.stored import Stored
from clusterlm.spec.data import Decontaminate, Dedup, NearDuplicates

PART_TOKENS = 4_000_000
"""Looked at by a worker at a time."""
FEW_TOKENS = 2 * PART_TOKENS
"""Less than this is looked at in this process."""


@dataclass(frozen=True)
class Chosen:
    """The kept documents, and what was found about the others.

    Attributes:
        num_near: near duplicates that were dropped.
        num_compared: pairs of documents whose signatures were compared.
    """

    stored: Stored
    num_near: int = 0
    num_compared: int = 0
    num_contaminated: int = 0


def choose_documents(
    stored: Stored,
    shards: Sequence[Shard],
    dtype: str,
    dedup: Dedup,
    fractions: Sequence[float],
    cache: Path,
    *,
    workers: int,
    report: Report,
) -> Chosen:
    """Drop what `data.dedup` asks for.

    Args:
        stored: all documents, those first that are kept of two that are alike.
        shards: in the order of addresses.
        dtype: of the tokens.
        dedup: the spec.
        fractions: share of each source that will be held back.
        cache: the folder of all prepared data.
        workers: processes.
        report: told how far it is.
    """
    look = _Look(shards, dtype, workers, report)
    memory = _Memory(cache / CHOSEN, shards)
    num_near = num_compared = num_contaminated = 0
    if dedup.exact:
        rows = np.arange(len(stored.table))
        stored = stored.drop(first_occurrences(stored.digests) != rows, "duplicate")
    if dedup.near is not None:
        spec = dedup.near
        found = memory.recall(stored, spec, lambda: _near(stored, look, spec))
        num_near, num_compared = (int(number) for number in found["counts"])
        stored = stored.drop(found["dropped"], "near_duplicate")
    if dedup.decontaminate is not None:
        settings = (dedup.decontaminate, tuple(fractions))
        found = memory.recall(stored, settings, lambda: _contaminated(stored, look, settings))
        num_contaminated = int(found["dropped"].sum())
        stored = stored.drop(found["dropped"], "contaminated")
    return Chosen(stored, num_near, num_compared, num_contaminated)


Found = dict[str, np.ndarray[Any, np.dtype[Any]]]


@dataclass(frozen=True)
class _Part:
    """Documents of one shard, for a worker."""

    shard: Shard
    dtype: str
    first: int
    count: int
    starts: Numbers
    lengths: Numbers


class _Look:
    """Looks at the tokens of documents, part by part, in worker processes where it is worth it."""

    def __init__(self, shards: Sequence[Shard], dtype: str, workers: int, report: Report) -> None:
        self.files = ShardFiles(shards, dtype)
        self._dtype, self._workers, self._report = dtype, workers, report

    def at(
        self, starts: Numbers, lengths: Numbers, function: Callable[..., Any], *rest: Any, what: str
    ) -> list[Any]:
        """What `function(part, *rest)` gives for each part, in order."""
        parts = list(self._parts(starts, lengths))
        total = sum(part.count for part in parts)
        results, done = [], 0
        with _mapping(self._workers if total > FEW_TOKENS else 1) as run:
            for part, result in zip(parts, run(function, parts, rest), strict=True):
                results.append(result)
                done += part.count
                self._report(Progress(f"{what} {done / 1e6:.0f} M of {total / 1e6:.0f} M tokens"))
        return results

    def _parts(self, starts: Numbers, lengths: Numbers) -> Iterator[_Part]:
        # rows ascend by address; a part ends with its shard, or when it is large enough
        shard = np.searchsorted(self.files.bases, starts, side="right") - 1
        upto = np.cumsum(lengths)
        group = upto // PART_TOKENS
        cuts = np.flatnonzero((np.diff(shard) != 0) | (np.diff(group) != 0)) + 1
        for rows in np.split(np.arange(len(starts)), cuts):
            if not len(rows):
                continue
            number, first = int(shard[rows[0]]), int(starts[rows[0]])
            end = int(starts[rows[-1]] + lengths[rows[-1]])
            yield _Part(
                self.files.shards[number],
                self._dtype,
                first - self.files.bases[number],
                end - first,
                starts[rows] - first,
                lengths[rows],
            )


Run = Callable[[Callable[..., Any], Sequence[_Part], tuple[Any, ...]], Iterator[Any]]


@contextmanager
def _mapping(workers: int) -> Iterator[Run]:
    if workers <= 1:
        yield lambda function, parts, rest: (function(part, *rest) for part in parts)
        return
    # spawned: a fork of a process that has used the tokenizers library can hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_watch_parent)
    try:
        yield lambda function, parts, rest: pool.map(
            function, parts, *([r] * len(parts) for r in rest)
        )
    finally:
        pool.shutdown(cancel_futures=True)


def _watch_parent() -> None:
    """Let this worker end with its parent, also when that is killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _near(stored: Stored, look: _Look, spec: NearDuplicates) -> Found:
    table = stored.table
    signed = look.at(table.starts, table.lengths, _sign, spec, what="comparing")
    none = np.zeros((0, spec.permutations), dtype=np.uint32)
    found = near_duplicates(
        np.concatenate([none, *signed]),
        spec,
        count_shingles=lambda pairs: similarities_of(
            pairs, lambda row: shingles_of(_tokens_of(look, stored, row), spec.shingle)
        ),
    )
    return {
        "dropped": ~found.keep,
        "counts": np.array([len(found.pairs), found.num_compared], dtype=np.int64),
    }


def _contaminated(
    stored: Stored, look: _Look, settings: tuple[Decontaminate, tuple[float, ...]]
) -> Found:
    spec, fractions = settings
    table = stored.table
    _, validation = split_documents(table, fractions)
    starts, lengths = _without_end(validation.starts, validation.lengths)
    texts = [look.files[s : s + n] for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
    empty = np.zeros(0, dtype=look.files.dtype)
    index = index_validation(
        np.concatenate([empty, *texts]), np.cumsum(lengths) - lengths, lengths, spec
    )
    is_train = ~np.isin(table.starts, validation.starts)
    starts, lengths = _without_end(table.starts[is_train], table.lengths[is_train])
    masks = look.at(starts, lengths, _compare, index, what="decontaminating")
    dropped = np.zeros(len(table), dtype=np.bool_)
    dropped[is_train] = np.concatenate([np.zeros(0, dtype=np.bool_), *masks])
    return {"dropped": dropped}


def _without_end(starts: Numbers, lengths: Numbers) -> tuple[Numbers, Numbers]:
    # a short document is found inside others only without the mark behind it
    return starts, np.maximum(lengths - 1, np.minimum(lengths, 1))


def _tokens_of(look: _Look, stored: Stored, row: int) -> Any:
    start, length = int(stored.table.starts[row]), int(stored.table.lengths[row])
    return look.files[start : start + length]


def _sign(part: _Part, spec: NearDuplicates) -> Signatures:
    return signatures_of(_read(part), part.starts, part.lengths, spec)


def _compare(part: _Part, index: ValidationIndex) -> Mask:
    return contaminated(_read(part), part.starts, part.lengths, index).mask


def _read(part: _Part) -> Any:
    return ShardFiles([part.shard], part.dtype)[part.first : part.first + part.count]


class _Memory:
    """Remembers what was found, by what was looked at. Only ever a saving of time."""

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._folder = folder
        self._prefix = chosen_prefix([shard.tokens.parent.name for shard in shards])

    def recall(self, stored: Stored, settings: object, find: Callable[[], Found]) -> Found:
        """What was found before, or is found now."""
        state = xxhash.xxh3_128(repr(settings).encode())
        table = stored.table
        for column in (table.starts, table.lengths, table.keys, table.source, table.is_held_back):
            state.update(np.ascontiguousarray(column).data)
        path = self._folder / f"{self._prefix}-{state.hexdigest()}.npz"
        # whatever is wrong with it (zipfile, zlib, numpy have errors of their own): look again
        with suppress(Exception), path.open("rb") as handle, np.load(handle) as known:
            return dict(known)
        found = find()
        # a cache that may only be read is no reason to fail here
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.{os.getpid()}.npz")
            np.savez(aside, allow_pickle=False, **found)
            os.replace(aside, path)
        return found
