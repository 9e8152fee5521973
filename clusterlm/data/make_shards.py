"""Encodes the shards that are not there yet, with many workers, in an order that does not matter.

Chunks go out in reading order and come back in any. They are *settled* in reading order: only then
is known whether a chunk is wanted (a source may have a limit, a compressed file may have ended),
whether a bad record ends the run, and where its tokens go. At most a few chunks a worker are on
their way, so memory does not grow with the corpus.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clusterlm.data.chunks import Chunk
from clusterlm.data.documents import BAD, Problem
from clusterlm.data.encode import EncodedSizes, EncodeOptions
from clusterlm.data.engine_gate import CutsRefused, EngineRefused, Gate
from clusterlm.data.files import SourceFile
from clusterlm.data.shard_writer import ShardWriter
from clusterlm.data.shards import ChunkRow
from clusterlm.data.units import Unit
from clusterlm.data.workers import (
    Answer,
    Encode,
    Flush,
    Try,
    WorkerKilled,
    Write,
    crew_of,
    raise_failure,
)
from clusterlm.errors import DataError

AHEAD = 2
"""Chunks that a worker has before it, so that it never waits."""
UNSETTLED = 4
"""Chunks a worker that may be out, not settled or not written."""

GATE_TIMEOUT_S = 120.0
"""How long an engine may take to load and to encode the texts of the gate; mostly 2 s."""


@dataclass(frozen=True)
class Limit:
    """How much of a source is wanted.

    Attributes:
        first_record, end_record: of the source's records; None for all behind.
        num_documents: that can be used.
    """

    first_record: int = 0
    end_record: int | None = None
    num_documents: int | None = None


@dataclass
class ShardJob:
    """A shard to be made.

    Attributes:
        stamps: of the unit's files when their content was looked at.
    """

    root: Path
    unit: Unit
    is_masked: bool
    is_coded: bool
    limit: Limit
    stamps: tuple[tuple[int, int, int], ...]


def file_stamps(files: Sequence[SourceFile]) -> tuple[tuple[int, int, int], ...]:
    """Size and times of each file: the same, as long as nobody has written into it."""
    stats = [file.path.stat() for file in files]
    return tuple((s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in stats)


OnChunk = Callable[[ShardJob, EncodedSizes], None]
OnBad = Callable[[ShardJob, Problem], None]


def make_shards(
    jobs: Sequence[ShardJob],
    options: EncodeOptions,
    dtype: str,
    *,
    workers: int,
    gate: Gate,
    on_chunk: OnChunk,
    on_bad: OnBad,
) -> None:
    """Encode every job. The files are the same for any number of workers.

    Args:
        jobs: in reading order.
        options: for the workers.
        dtype: of the tokens.
        workers: processes.
        gate: what the engine must pass before anything is written.
        on_chunk: called for every chunk that is wanted, in reading order.
        on_bad: called for every malformed record, in reading order; may raise to end the run.

    Raises:
        EngineRefused: the engine gives other ids than it must, crashes or hangs.
        CutsRefused: cutting long texts changes their ids.
        DataError: something cannot be read, or a worker was killed.
        OSError: something cannot be written.
    """
    run = _Run(jobs, options, dtype, workers, gate, on_chunk, on_bad)
    try:
        run.work()
    finally:
        run.close()


class _Making:
    """A job under way."""

    def __init__(self, job: ShardJob, dtype: str) -> None:
        self.job = job
        self.writer = ShardWriter(job.root, dtype, is_masked=job.is_masked, is_coded=job.is_coded)
        self.ended: set[int] = set()
        self.is_closed = False
        self.is_issued = False
        self.num_out = 0
        self._num_records = 0
        self._num_documents = 0

    @property
    def is_done(self) -> bool:
        return self.is_issued and not self.num_out

    def matters(self, problem: Problem) -> bool:
        """Whether a malformed record of the next chunk stands before the end of what is wanted."""
        limit = self.job.limit
        documents = self._num_documents + problem.documents_before
        if limit.num_documents is not None and documents >= limit.num_documents:
            return False
        record = self._num_records + problem.record
        return record >= limit.first_record and (
            limit.end_record is None or record < limit.end_record
        )

    def take(self, chunk: Chunk, sizes: EncodedSizes) -> bool:
        """Whether a settled chunk is wanted; closes the job when nothing behind it is."""
        if chunk.is_open and not sizes.num_records:
            # nothing comes behind the end of a file whose length was not known
            self.ended.add(chunk.first_file)
            return False
        if self.is_closed:
            return False
        limit = self.job.limit
        if self._num_records >= limit.first_record:
            self._num_documents += sizes.num_documents
        self._num_records += sizes.num_records
        has_all = limit.num_documents is not None and self._num_documents >= limit.num_documents
        is_behind = limit.end_record is not None and self._num_records >= limit.end_record
        self.is_closed = has_all or is_behind
        return True


@dataclass
class _Out:
    """A chunk on its way."""

    making: _Making
    index: int
    chunk: Chunk
    worker: int
    sizes: EncodedSizes | None = None
    row: ChunkRow | None = None


class _Run:
    def __init__(
        self,
        jobs: Sequence[ShardJob],
        options: EncodeOptions,
        dtype: str,
        workers: int,
        gate: Gate,
        on_chunk: OnChunk,
        on_bad: OnBad,
    ) -> None:
        self._gate: Gate | None = gate
        self._crew = crew_of(options, workers)
        self._dtype = dtype
        self._on_chunk, self._on_bad = on_chunk, on_bad
        self._next = self._issue(jobs)
        self._open: list[_Making] = []
        self._out: dict[int, _Out] = {}
        self._load = Counter[int]()
        self._num_issued = self._num_settled = 0
        self._flushing: dict[int, _Making] = {}

    def close(self) -> None:
        self._crew.close()
        for making in (*self._open, *self._flushing.values()):
            making.writer.leave()

    def work(self) -> None:
        assert self._gate is not None
        self._crew.send(0, Try(0, self._gate.texts))
        while True:
            self._fill()
            if self._gate is not None:
                # the workers load meanwhile
                self._gate.prepare()
            elif not self._out and not self._flushing:
                return
            worker, answer = self._answer()
            self._take(worker, answer)

    def _answer(self) -> tuple[int, Answer]:
        if self._gate is None:
            worker, answer = self._crew.answer()
            raise_failure(answer)
            return worker, answer
        try:
            worker, answer = self._crew.answer(GATE_TIMEOUT_S)
        except TimeoutError:
            raise EngineRefused(f"gave no answer in {GATE_TIMEOUT_S:.0f} s") from None
        except WorkerKilled:
            raise EngineRefused("crashed") from None
        if answer.order is Try and answer.error:
            reason = answer.error.strip().splitlines()[-1][:160]
            raise EngineRefused(f"cannot use this tokenizer ({reason})")
        raise_failure(answer)
        return worker, answer

    def _issue(self, jobs: Sequence[ShardJob]) -> Iterator[tuple[_Making, int, Chunk]]:
        for job in jobs:
            making = _Making(job, self._dtype)
            self._open.append(making)
            for index, chunk in enumerate(job.unit.chunks(making.ended)):
                if making.is_closed:
                    break
                yield making, index, chunk
            making.is_issued = True
            self._finish_done()

    def _fill(self) -> None:
        """Give out chunks while workers have room."""
        while len(self._out) < self._crew.size * UNSETTLED:
            worker = min(range(self._crew.size), key=self._load.__getitem__)
            if self._load[worker] >= AHEAD:
                return
            found = next(self._next, None)
            if found is None:
                return
            making, index, chunk = found
            making.num_out += 1
            self._load[worker] += 1
            self._out[self._num_issued] = _Out(making, index, chunk, worker)
            self._crew.send(worker, Encode(self._num_issued, chunk))
            self._num_issued += 1

    def _take(self, worker: int, answer: Answer) -> None:
        if answer.order is Try:
            self._pass_gate(answer)
            return
        if answer.order is Flush:
            self._finish(self._flushing.pop(answer.number))
            return
        if answer.order is Encode:
            self._load[worker] -= 1
            self._out[answer.number].sizes = answer.sizes
            self._settle()
            return
        out = self._out.pop(answer.number)
        out.making.num_out -= 1
        if out.row is not None:
            out.making.writer.note(replace(out.row, hash=answer.hash))
        self._finish_done()

    def _pass_gate(self, answer: Answer) -> None:
        assert self._gate is not None
        assert answer.encoded is not None
        if difference := self._gate.difference(answer.encoded):
            raise EngineRefused(difference)
        if not answer.cuts_hold:
            raise CutsRefused
        self._gate = None
        self._settle()

    def _settle(self) -> None:
        """Decide on the chunks that are next in reading order; none before the gate is passed."""
        if self._gate is not None:
            return
        while (out := self._out.get(self._num_settled)) is not None and out.sizes is not None:
            sizes, making = out.sizes, out.making
            place = None
            bad = [p for p in sizes.dropped if p.reason == BAD and making.matters(p)]
            if making.take(out.chunk, sizes):
                for problem in bad:
                    file = problem.file + out.chunk.first_file
                    self._on_bad(making.job, problem._replace(file=file))
                place = making.writer.place(sizes.num_tokens, sizes.num_documents)
                file = out.chunk.first_file - making.job.unit.first_file
                out.row = sizes.row(out.index, file, place)
                self._on_chunk(making.job, sizes)
            self._crew.send(out.worker, Write(self._num_settled, place))
            self._num_settled += 1

    def _finish(self, making: _Making) -> None:
        job = making.job
        if file_stamps(job.unit.files) != job.stamps:
            # under its key it would be found for a content that it does not hold
            making.writer.discard()
            raise DataError(
                f"{job.unit.files[0].path} (or one beside it) changed while it was read;"
                " start again"
            )
        making.writer.finish()

    def _finish_done(self) -> None:
        for making in [making for making in self._open if making.is_done]:
            self._open.remove(making)
            number = -1 - len(self._flushing)
            while number in self._flushing:
                number -= 1
            self._flushing[number] = making
            self._crew.send(0, Flush(number, making.writer.files))
