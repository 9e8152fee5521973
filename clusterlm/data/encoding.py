"""All sources -> shards, those that are not there yet: which engine, how many workers, how far."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clusterlm.data.documents import Problem, token_dtype
from clusterlm.data.encode import EncodedSizes, EncodeOptions
from clusterlm.data.engine_choice import choose_engine
from clusterlm.data.known import known_chunks
from clusterlm.data.long_text import cut_rule
from clusterlm.data.make_shards import ShardJob, make_shards
from clusterlm.data.progress import Progress, Report
from clusterlm.data.reading import Reading, shard_jobs, source_keys
from clusterlm.data.sample import sample_of
from clusterlm.data.shards import StoredShard, is_whole, open_shard
from clusterlm.data.sources import place_of
from clusterlm.data.summary import size_in_words
from clusterlm.data.tokenizer import load_vocabulary
from clusterlm.errors import DataError
from clusterlm.spec.data import Data

SMALL_BYTES = 4_000_000
"""Less than this is encoded in this process: workers take a second to start."""
TRIAL_BYTES = 1_000_000
"""Text on which engines are tried."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """A share of the shards: those whose number leaves `number` when divided by `of`."""

    number: int = 0
    of: int = 1


def encode_sources(
    data: Data,
    readings: Sequence[Reading],
    tokenizer: Path,
    cache: Path,
    *,
    workers: int,
    report: Report,
    tell: Tell,
    task: Task | None = None,
) -> list[list[StoredShard]]:
    """The shards of every source; with a task, its share of them is made and nothing is given.

    Raises:
        DataError: a record cannot be used (and `on_bad_record` is stop), a file cannot be read.
    """
    vocabulary = load_vocabulary(tokenizer)
    if any(reading.is_conversation for reading in readings):
        # a template that does not compile is told here, and not by a worker
        _ = vocabulary.chat
    dtype = np.dtype(token_dtype(vocabulary.size)).name
    keys = source_keys(readings, tokenizer, dtype)
    # texts of this tokenizer may be read in pieces
    cuts_texts = cut_rule(tokenizer / "tokenizer.json") is not None
    jobs = shard_jobs(readings, keys, cache / "shards", cuts_texts=cuts_texts)
    flat = [job for own in jobs for job in own]
    share = flat if task is None else _largest_first(flat)[task.number :: task.of]
    chosen = set(map(id, share))
    missing = [job for job in flat if id(job) in chosen and not is_whole(job.root)]
    if missing:
        _encode(data, readings, missing, keys, tokenizer, dtype, workers, report, tell)
    if task is not None:
        return []
    return [[_opened(job) for job in own] for own in jobs]


def _largest_first(jobs: Sequence[ShardJob]) -> list[ShardJob]:
    # dealt out like cards, large ones first: the shares are about as large
    return sorted(jobs, key=lambda job: (-job.unit.num_bytes, job.root.name))


def _encode(
    data: Data,
    readings: Sequence[Reading],
    missing: Sequence[ShardJob],
    keys: tuple[str, ...],
    tokenizer: Path,
    dtype: str,
    workers: int,
    report: Report,
    tell: Tell,
) -> None:
    total = sum(job.unit.num_bytes for job in missing)
    report(Progress("choosing an engine"))
    sample = sample_of(readings, max_bytes=TRIAL_BYTES)
    texts = [text for some in sample.texts() for text in some]
    choice = choose_engine(data.engine, tokenizer / "tokenizer.json", texts, total_bytes=total)
    for line in choice.lines:
        tell(line)
    options = EncodeOptions(
        sources=tuple(reading.source for reading in readings),
        keys=keys,
        tokenizer=tokenizer,
        engine=choice.name,
        known=known_chunks(missing[0].root.parent, dtype),
    )
    counter = _Counter(readings, total, report, stops=data.on_bad_record == "stop")
    make_shards(
        missing,
        options,
        dtype,
        workers=1 if total < SMALL_BYTES else workers,
        on_chunk=counter.count,
        on_bad=counter.refuse,
    )
    tell(counter.words())


class _Counter:
    """Counts what comes back, and ends the run at a bad record if it is to."""

    def __init__(
        self, readings: Sequence[Reading], total: int, report: Report, *, stops: bool
    ) -> None:
        self._readings, self._report, self._stops = readings, report, stops
        self._total = total
        self._counts = Counter[str]()
        self._started = time.monotonic()

    def count(self, job: ShardJob, sizes: EncodedSizes) -> None:
        counts = self._counts
        counts["bytes"] += sizes.num_bytes
        counts["tokens"] += sizes.num_tokens
        counts["reused"] += sizes.num_bytes if sizes.is_reused else 0
        self._report(Progress(f"tokenizing {self._done()}", counts["bytes"], self._total))

    def refuse(self, job: ShardJob, problem: Problem) -> None:
        if self._stops:
            files = self._readings[job.unit.source].files
            place = place_of(files, problem.file, problem.offset)
            raise DataError(
                f"{place}: {problem.detail}; set data.on_bad_record: skip to leave such records"
                " out, or quarantine to keep them aside"
            )

    def words(self) -> str:
        """One line at the end."""
        seconds = time.monotonic() - self._started
        reused = self._counts["reused"]
        again = f", {size_in_words(reused)} of it known from before" if reused else ""
        return f"tokenized {self._done()}{again}, in {seconds:.1f} s"

    def _done(self) -> str:
        read, tokens = self._counts["bytes"], self._counts["tokens"]
        speed = read / max(1e-3, time.monotonic() - self._started)
        return (
            f"{size_in_words(read)} of {size_in_words(self._total)}, {tokens / 1e6:.1f} M tokens,"
            f" {size_in_words(speed)}/s"
        )


def _opened(job: ShardJob) -> StoredShard:
    shard = open_shard(job.root, job.unit.first_file)
    if shard is None:
        raise DataError(f"{job.root}: the tokens that were made there are gone; run it again")
    return shard
