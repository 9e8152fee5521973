"""Encodes chunks in worker processes and gives them back in the order of reading.

Processes are spawned and not forked: a fork of a process that has used the tokenizers library can
hang. At most two chunks a worker are in flight, so memory does not grow with the corpus. Workers
end with their parent, also when it is killed.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from clusterlm.data.encode import EncodedChunk, EncodeOptions, Encoder
from clusterlm.data.sources import Chunk
from clusterlm.errors import DataError

CHUNKS_IN_FLIGHT = 2

_encoder: Encoder | None = None


def encode_chunks(
    options: EncodeOptions, chunks: Iterable[Chunk], *, workers: int
) -> Iterator[EncodedChunk]:
    """Encode `chunks`, in order. The result does not depend on `workers`.

    `chunks` is drawn from as room comes free, so it may look at what was given back before.
    """
    if workers <= 1:
        encoder = Encoder(options)
        yield from map(encoder.encode, chunks)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(options,))
    waiting: deque[Future[EncodedChunk]] = deque()
    remaining = iter(chunks)
    try:
        while True:
            room = workers * CHUNKS_IN_FLIGHT - len(waiting)
            waiting.extend(pool.submit(_encode, c) for c in itertools.islice(remaining, room))
            if not waiting:
                return
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed, most likely for want of memory; lower"
            " resources.preprocess.cpus or raise resources.preprocess.mem"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start(options: EncodeOptions) -> None:
    global _encoder
    # Ctrl-C goes to the whole group; the parent alone decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # one thread a process: the processes are the parallelism
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _encoder = Encoder(options)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode(chunk: Chunk) -> EncodedChunk:
    assert _encoder is not None
    return _encoder.encode(chunk)
