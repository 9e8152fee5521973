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

from clusterlm.data.encode import EncodedSizes, EncodeOptions
from clusterlm.data.formats.chunks import Chunk
from clusterlm.data.store.documents import BAD, Problem
from clusterlm.data.store.shard_job import Making, ShardJob, file_stamps
from clusterlm.data.store.shards import ChunkRow
from clusterlm.data.store.workers import (
    Answer,
    Encode,
    Flush,
    Try,
    WorkerKilled,
    Write,
    crew_of,
    raise_failure,
)
from clusterlm.data.tokens.engine_gate import CutsRefused, EngineRefused, Gate
from clusterlm.data.tokens.engines import TokenizersEngine
from clusterlm.errors import DataError

AHEAD = 2
"""Chunks that a worker has before it, so that it never waits."""
UNSETTLED = 4
"""Chunks a worker that may be out, not settled or not written."""

GATE_TIMEOUT_S = 120.0
"""How long an engine may take to load and to encode the texts of the gate; mostly 2 s."""


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


@dataclass
class _Out:
    """A chunk on its way."""

    making: Making
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
        self._is_reference = options.engine == TokenizersEngine.name
        self._crew = crew_of(options, workers)
        self._dtype = dtype
        self._on_chunk, self._on_bad = on_chunk, on_bad
        self._next = self._issue(jobs)
        self._open: list[Making] = []
        self._out: dict[int, _Out] = {}
        self._load = Counter[int]()
        self._num_issued = self._num_settled = 0
        self._flushing: dict[int, Making] = {}

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
            # of the library itself it is more likely that the memory was short
            if self._is_reference:
                raise
            raise EngineRefused("crashed") from None
        if answer.order is Try and answer.error:
            reason = answer.error.strip().splitlines()[-1][:160]
            raise EngineRefused(f"cannot use this tokenizer ({reason})")
        raise_failure(answer)
        return worker, answer

    def _issue(self, jobs: Sequence[ShardJob]) -> Iterator[tuple[Making, int, Chunk]]:
        for job in jobs:
            making = Making(job, self._dtype)
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
            bad = [p for p in sizes.dropped if p.reason == BAD and making.matters(out.chunk, p)]
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

    def _finish(self, making: Making) -> None:
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
