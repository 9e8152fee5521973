"""All sources -> shards, those that are not there yet: which engine, how many workers, how far."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from clusterlm.data.encode import EncodedSizes, EncodeOptions
from clusterlm.data.progress import Progress, Report
from clusterlm.data.reading import Reading, shard_jobs, source_keys
from clusterlm.data.sample import sample_of
from clusterlm.data.sources import place_of
from clusterlm.data.store.aside import remove_dead
from clusterlm.data.store.documents import Problem, token_dtype
from clusterlm.data.store.known import known_chunks
from clusterlm.data.store.make_shards import make_shards
from clusterlm.data.store.shard_job import Limit, ShardJob
from clusterlm.data.store.shards import StoredShard, is_whole, open_shard
from clusterlm.data.summary import size_in_words
from clusterlm.data.tokenizer import Vocabulary, load_vocabulary
from clusterlm.data.tokens.cut_rules import cut_rule
from clusterlm.data.tokens.engine_choice import choose_engine
from clusterlm.data.tokens.engine_gate import CutsRefused, EngineRefused, Gate
from clusterlm.data.tokens.long_text import Cutter
from clusterlm.errors import DataError
from clusterlm.spec.data import Data
from clusterlm.spec.wording import printable

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
    run = _Encoding(data, readings, vocabulary, cache, workers, report, tell)
    cutter = cut_rule(tokenizer / "tokenizer.json")
    jobs = run.jobs(cutter)
    if missing := _missing(jobs, task):
        try:
            run.encode(missing, cutter)
        except CutsRefused:
            tell("long texts are not cut: this tokenizer gives other tokens for the pieces")
            jobs = run.jobs(None)
            run.encode(_missing(jobs, task), None)
    if task is not None:
        return []
    shards = [[_opened(job) for job in own] for own in jobs]
    if data.on_bad_record == "stop":
        for reading, own, found in zip(readings, jobs, shards, strict=True):
            _refuse_known(reading, own, found)
    return shards


def _refuse_known(
    reading: Reading, jobs: Sequence[ShardJob], shards: Sequence[StoredShard]
) -> None:
    """Stop at a bad record also where another run had it skipped."""
    for job, shard in zip(jobs, shards, strict=True):
        if job.limit == Limit() and (bad := next(shard.bad(), None)) is not None:
            raise DataError(_stopped(reading, bad))


def _stopped(reading: Reading, problem: Problem) -> str:
    place = place_of(reading.files, problem.file, problem.offset)
    return (
        f"{place}: {printable(problem.detail)}; set data.on_bad_record: skip to leave such records"
        " out, or quarantine to keep them aside"
    )


def _missing(jobs: Sequence[Sequence[ShardJob]], task: Task | None) -> list[ShardJob]:
    """The jobs that are not done, in reading order; of a task, those of its share."""
    flat = [job for own in jobs for job in own]
    if task is not None:
        # dealt out like cards, large ones first: the shares are about as large
        dealt = sorted(flat, key=lambda job: (-job.unit.num_bytes, job.root.name))
        share = {job.root for job in dealt[task.number :: task.of]}
        flat = [job for job in flat if job.root in share]
    # the same content twice is one shard
    return [job for job in {job.root: job for job in flat}.values() if not is_whole(job.root)]


@dataclass
class _Encoding:
    """What the steps have in common."""

    data: Data
    readings: Sequence[Reading]
    vocabulary: Vocabulary
    cache: Path
    workers: int
    report: Report
    tell: Tell

    @property
    def tokenizer(self) -> Path:
        return self.vocabulary.folder

    @property
    def dtype(self) -> str:
        return np.dtype(token_dtype(self.vocabulary.size)).name

    @cached_property
    def sample(self) -> list[str]:
        """Texts to try engines and cuts on."""
        sample = sample_of(self.readings, max_bytes=TRIAL_BYTES)
        return [text for some in sample.texts() for text in some]

    def keys(self, cutter: Cutter | None) -> tuple[str, ...]:
        """Of each source."""
        may_cut = cutter is not None
        return source_keys(self.readings, self.vocabulary, self.dtype, may_cut=may_cut)

    def jobs(self, cutter: Cutter | None) -> list[list[ShardJob]]:
        """All shards."""
        shards, keys = self.cache / "shards", self.keys(cutter)
        return shard_jobs(self.readings, keys, shards, cuts_texts=cutter is not None)

    def encode(self, missing: Sequence[ShardJob], cutter: Cutter | None) -> None:
        """Make the missing shards, with the first engine that passes the gate."""
        total = sum(job.unit.num_bytes for job in missing)
        workers = 1 if total < SMALL_BYTES else self.workers
        self.report(Progress("choosing an engine"))
        path = self.tokenizer / "tokenizer.json"
        choice = choose_engine(
            self.data.engine, path, self.sample, total_bytes=total, workers=workers
        )
        for line in choice.lines:
            self.tell(line)
        gate = Gate(self.vocabulary.encoder, self.sample)
        for name in choice.names:
            try:
                self._encode(missing, cutter, name, workers, gate)
            except EngineRefused as refused:
                if name == choice.names[-1]:
                    raise DataError(f"data.engine: {name} {refused}; write auto") from refused
                self.tell(f"{name} {refused}; it is not used")
            else:
                break
        # what killed writers left was used, or is for somebody else's shards
        remove_dead(self.cache / "shards", but_for=lambda root: not is_whole(root))

    def _encode(
        self,
        missing: Sequence[ShardJob],
        cutter: Cutter | None,
        engine: str,
        workers: int,
        gate: Gate,
    ) -> None:
        options = EncodeOptions(
            sources=tuple(reading.source for reading in self.readings),
            keys=self.keys(cutter),
            tokenizer=self.tokenizer,
            engine=engine,
            cutter=cutter,
            known=known_chunks(self.cache / "shards", self.dtype),
        )
        total = sum(job.unit.num_bytes for job in missing)
        stops = self.data.on_bad_record == "stop"
        counter = _Counter(self.readings, total, self.report, stops=stops)
        make_shards(
            missing,
            options,
            self.dtype,
            workers=workers,
            gate=gate,
            on_chunk=counter.count,
            on_bad=counter.refuse,
        )
        self.tell(f"{counter.words()} ({engine})")


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
            raise DataError(_stopped(self._readings[job.unit.source], problem))

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
