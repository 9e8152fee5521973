"""Worker processes: each encodes chunks, holds what it made, and writes it where it is told.

Processes are spawned and not forked: a fork of a process that has used the tokenizers library can
hang. Orders and answers go through a pipe of each worker and hold no tokens. A worker ends with its
parent, also when that is killed: its pipe ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from clusterlm.data.encode import EncodedSizes, EncodeOptions, Encoder
from clusterlm.data.formats.chunks import Chunk
from clusterlm.data.store.documents import Ids, Numbers
from clusterlm.data.store.shard_writer import Place, flush_files, write_chunk
from clusterlm.errors import ClusterLMError, DataError


@dataclass(frozen=True)
class Encode:
    """Order: encode a chunk and hold it."""

    number: int
    chunk: Chunk


@dataclass(frozen=True)
class Write:
    """Order: write what you hold; without a place, forget it."""

    number: int
    place: Place | None


@dataclass(frozen=True)
class Flush:
    """Order: bring the files of a finished shard to the disk."""

    number: int
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Try:
    """Order: encode these texts and give the ids; and cut them, to see whether that changes any."""

    number: int
    texts: list[str]


Order = Encode | Write | Flush | Try


@dataclass(frozen=True)
class Answer:
    """What came of an order.

    Attributes:
        sizes: of an encoded chunk.
        hash: of a written chunk.
        encoded: ids and ends of texts that were tried.
        cuts_hold: cutting them changed no id.
        error: why it failed, if it did: an error of ours with its words, else a traceback.
        errno: of an OSError, so that a full disk is told as such.
    """

    order: type[Order]
    number: int
    sizes: EncodedSizes | None = None
    hash: str = ""
    encoded: tuple[Ids, Numbers] | None = None
    cuts_hold: bool = True
    error: str = ""
    is_ours: bool = False
    errno: int | None = None


class WorkerKilled(DataError):
    """A worker process is gone."""


class Crew(Protocol):
    """Somebody who works."""

    @property
    def size(self) -> int: ...

    def send(self, worker: int, order: Order) -> None: ...

    def answer(self, timeout_s: float | None = None) -> tuple[int, Answer]: ...

    def close(self) -> None: ...


def crew_of(options: EncodeOptions, workers: int) -> Crew:
    """`workers` processes; one alone works in this process, unless native code may crash it."""
    is_safe = options.engine == "tokenizers"
    return _Here(options) if workers == 1 and is_safe else _Processes(options, workers)


def raise_failure(answer: Answer) -> None:
    """Raise what went wrong in a worker."""
    if answer.errno is not None:
        raise OSError(answer.errno, answer.error)
    if answer.is_ours:
        raise DataError(answer.error)
    if answer.error:
        raise RuntimeError(f"a worker failed:\n{answer.error}")


class _Hands:
    """Carries orders out; in a worker, or in the parent itself."""

    def __init__(self, options: EncodeOptions) -> None:
        self._options = options
        # made with the first order, so that what is wrong with the tokenizer is an answer too
        self._encoder: Encoder | None = None

    def carry_out(self, order: Order) -> Answer:
        try:
            return self._carry_out(order)
        except ClusterLMError as error:
            return Answer(type(order), order.number, error=str(error), is_ours=True)
        except OSError as error:
            text = error.strerror or str(error)
            return Answer(type(order), order.number, error=text, errno=error.errno)
        except MemoryError:
            return Answer(type(order), order.number, error="out of memory", is_ours=True)
        # a panic of native code is no Exception
        except BaseException:
            return Answer(type(order), order.number, error=traceback.format_exc())

    def _carry_out(self, order: Order) -> Answer:
        if self._encoder is None:
            self._encoder = Encoder(self._options)
        if isinstance(order, Encode):
            sizes = self._encoder.encode(order.number, order.chunk)
            return Answer(Encode, order.number, sizes=sizes)
        if isinstance(order, Try):
            encoded, cuts_hold = self._encoder.try_texts(order.texts)
            return Answer(Try, order.number, encoded=encoded, cuts_hold=cuts_hold)
        if isinstance(order, Flush):
            flush_files(order.files)
            return Answer(Flush, order.number)
        arrays = self._encoder.held.pop(order.number)
        if order.place is None:
            return Answer(Write, order.number)
        write_chunk(order.place, arrays)
        return Answer(Write, order.number, hash=arrays.hash())


class _Here:
    """One worker, in this process."""

    size = 1

    def __init__(self, options: EncodeOptions) -> None:
        self._hands = _Hands(options)
        self._answers: deque[Answer] = deque()

    def send(self, worker: int, order: Order) -> None:
        self._answers.append(self._hands.carry_out(order))

    def answer(self, timeout_s: float | None = None) -> tuple[int, Answer]:
        return 0, self._answers.popleft()

    def close(self) -> None:
        self._answers.clear()


class _Processes:
    """Spawned workers."""

    def __init__(self, options: EncodeOptions, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        try:
            for _ in range(workers):
                here, there = context.Pipe()
                process = context.Process(target=_work, args=(there, options), daemon=True)
                process.start()
                there.close()
                self._pipes.append(here)
                self._processes.append(process)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        return len(self._pipes)

    def send(self, worker: int, order: Order) -> None:
        try:
            self._pipes[worker].send(order)
        except OSError as error:
            raise WorkerKilled(_killed()) from error

    def answer(self, timeout_s: float | None = None) -> tuple[int, Answer]:
        found = wait(self._pipes, timeout_s)
        if not found:
            raise TimeoutError
        ready = found[0]
        worker = next(i for i, pipe in enumerate(self._pipes) if pipe is ready)
        try:
            return worker, self._pipes[worker].recv()
        except (EOFError, OSError) as error:
            raise WorkerKilled(_killed()) from error

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
            process.close()


def _killed() -> str:
    return (
        "a worker process was killed, most likely for want of memory; lower"
        " resources.preprocess.cpus or raise resources.preprocess.mem"
    )


def _work(pipe: Connection, options: EncodeOptions) -> None:
    # Ctrl-C goes to the whole group; the parent alone decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # one thread a process: the processes are the parallelism
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    orders: SimpleQueue[Order] = SimpleQueue()
    threading.Thread(target=_take_orders, args=(pipe, orders), daemon=True).start()
    hands = _Hands(options)
    with suppress(BrokenPipeError, ConnectionResetError):
        while True:
            pipe.send(hands.carry_out(orders.get()))


def _take_orders(pipe: Connection, orders: SimpleQueue[Order]) -> None:
    # always reading: else parent and worker could wait for each other with full pipes
    with suppress(EOFError, OSError):
        while True:
            orders.put(pipe.recv())
    os._exit(1)
