"""What turns texts into ids: three libraries behind one call that makes no Python object a token.

    tokenizers   Hugging Face's, always there and always right: some 2 to 4 MB/s
    gigatoken    60 to 170 MB/s; keeps every word it has seen
    fastokens    70 to 200 MB/s; loads slowest (1 to 2 s for 150 000 entries)

Each runs in one thread: processes are the parallelism. Which one is taken is decided, and its ids
are compared with those of `tokenizers`, in `engine_choice.py`. Figures: one core, cold.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import psutil

Ids = npt.NDArray[np.uint32]
Numbers = npt.NDArray[np.int64]

FAST = ("gigatoken", "fastokens")
"""The optional ones, of the extra `fast`."""

GROWTH_BYTES = 88 << 20
"""How much a process may grow before gigatoken is opened anew: some 200 MB of real text, 13 MB of
random letters. A little later its table of words doubles, and takes 150 MB more at once."""
CHECK_CHARS = 2 << 20
"""How much it reads between two looks at that; text of random letters adds 10 bytes for each."""

_BATCH_CHARS = 1 << 18


class Engine(Protocol):
    """A loaded tokenizer that encodes many texts at once.

    Attributes:
        piece_bytes: texts up to this size are better not cut.
    """

    name: str
    piece_bytes: int

    def encode(self, texts: Sequence[str]) -> tuple[Ids, Numbers]:
        """The ids of all texts, one text behind the other, and the end of each text in them.

        Special tokens that a text spells out become their ids; none are added around it.
        """
        ...


def is_installed(name: str) -> bool:
    """Whether an engine can be imported; imports nothing."""
    return importlib.util.find_spec(name) is not None


def open_engine(name: str, tokenizer_json: Path) -> Engine:
    """Load a tokenizer. Sets this process to one thread a library, so call it in a worker."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # read by rayon, which all three stand on, when its pool is first used
    os.environ["RAYON_NUM_THREADS"] = "1"
    return _ENGINES[name](tokenizer_json)


class TokenizersEngine:
    """Hugging Face `tokenizers`: the reference for the ids of all others."""

    name = "tokenizers"
    # one that merges a whole text at once takes two to four times as long for 1 MB of it
    piece_bytes = 1 << 14

    def __init__(self, tokenizer_json: Path) -> None:
        import tokenizers

        self._use(tokenizers.Tokenizer.from_file(str(tokenizer_json)))

    @classmethod
    def around(cls, tokenizer: Any) -> TokenizersEngine:
        """An engine of a tokenizer that is loaded already."""
        engine = cls.__new__(cls)
        engine._use(tokenizer)
        return engine

    def _use(self, tokenizer: Any) -> None:
        import tokenizers

        self.tokenizer = tokenizer
        # a saved tokenizer may cut or fill up what it encodes; 1.0 does so only when asked
        if hasattr(self.tokenizer, "no_truncation"):
            self.tokenizer.no_truncation()
            self.tokenizer.no_padding()
        fast = getattr(self.tokenizer, "encode_batch_fast", None)
        self._encode = fast or self.tokenizer.encode_batch
        self._field = "ids_array" if hasattr(tokenizers.Encoding, "ids_array") else "ids"

    def encode(self, texts: Sequence[str]) -> tuple[Ids, Numbers]:
        rows = []
        # what it gives back takes some 150 bytes a byte of text
        for batch in _batches(texts):
            found = self._encode(batch, add_special_tokens=False)
            rows += [np.asarray(getattr(row, self._field), dtype=np.uint32) for row in found]
        return _joined(rows)


class GigatokenEngine:
    """`gigatoken`, opened anew when the words it keeps have taken GROWTH_BYTES.

    Its texts go in one by one: just as fast as a batch, whose result would need `awkward`, which
    takes 0.3 to 0.7 s to import and 45 MB.
    """

    name = "gigatoken"
    piece_bytes = 1 << 20

    def __init__(self, tokenizer_json: Path) -> None:
        self._path = tokenizer_json
        self._process = psutil.Process()
        self._open()

    def encode(self, texts: Sequence[str]) -> tuple[Ids, Numbers]:
        rows = []
        for text in texts:
            rows.append(self._encode(text))
            self._left -= len(text)
            if self._left <= 0:
                self._look_at_memory(sum(row.nbytes for row in rows))
        return _joined(rows)

    def _open(self) -> None:
        import gigatoken

        # the old one goes before the new one comes
        with suppress(AttributeError):
            del self._encode
        loaded = gigatoken.Tokenizer.from_json(self._path.read_bytes())
        self._encode: Callable[[str], Ids] = loaded.backend.encode
        self._left = CHECK_CHARS
        self._opened_with = self._process.memory_info().rss

    def _look_at_memory(self, held: int) -> None:
        """Open anew when the process has grown; `held` is what it holds of results."""
        self._left = CHECK_CHARS
        if self._process.memory_info().rss - held > self._opened_with + GROWTH_BYTES:
            self._open()


class FastokensEngine:
    """`fastokens`; its memory is bounded."""

    name = "fastokens"
    piece_bytes = 1 << 20

    def __init__(self, tokenizer_json: Path) -> None:
        import fastokens

        self._tokenizer = fastokens.Tokenizer.from_file(str(tokenizer_json))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, texts: Sequence[str]) -> tuple[Ids, Numbers]:
        ids, offsets = self._tokenizer.encode_batch_flat(list(texts))
        ends = np.frombuffer(offsets, dtype="<u8")[1:].astype(np.int64)
        return np.frombuffer(ids, dtype="<u4"), ends


_ENGINES = {engine.name: engine for engine in (TokenizersEngine, GigatokenEngine, FastokensEngine)}


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _joined(rows: list[Ids]) -> tuple[Ids, Numbers]:
    ends = np.cumsum(np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)))
    return np.concatenate([np.zeros(0, dtype=np.uint32), *rows]), ends
