"""What of the encoded documents is kept, in reading order, into one stream of tokens.

Here, in one process, stand the rules that look beyond a chunk: duplicates, `max_documents`, texts
that came in pieces. Texts are read before conversations, so that the mask covers the end of the
stream only; what is held back before what is trained, so that of two copies the one in the training
is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from clusterlm.data.dedup import DIGEST_BYTES, Duplicates, digest_of_pieces
from clusterlm.data.encode import EncodedChunk, Mask, Problem, TokenArray
from clusterlm.data.files import SourceFile, list_files
from clusterlm.data.fingerprint import sources_of
from clusterlm.data.order import Keys, keys_of, repeats_of
from clusterlm.errors import DataError
from clusterlm.spec.data import Data, Source

MAX_EXAMPLES = 10

Numbers = npt.NDArray[np.int64]


class TokenSink(Protocol):
    """Where kept tokens go."""

    @property
    def position(self) -> int: ...

    def append(self, tokens: TokenArray, mask: Mask | None) -> None: ...

    def rewind(self, position: int) -> None: ...


@dataclass(frozen=True)
class Reading:
    """A source in the order of reading.

    Attributes:
        place: where it stands in the YAML.
        is_held_back: one of `data.validation.sources`.
    """

    place: str
    source: Source
    files: list[SourceFile]
    is_held_back: bool

    @property
    def is_chat(self) -> bool:
        return self.source.kind != "text"

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)


def reading_order(data: Data) -> list[Reading]:
    """All sources: texts first, then conversations; within them, what is held back first."""
    readings = [
        Reading(place, source, list_files(source), is_held_back=i >= len(data.sources))
        for i, (place, source) in enumerate(sources_of(data))
    ]
    return sorted(readings, key=lambda r: (r.is_chat, not r.is_held_back))


@dataclass(frozen=True)
class Table:
    """The kept documents, one row each, in the order of the stream.

    Attributes:
        starts: first token in the stream.
        lengths: number of tokens.
        supervised: trained tokens of a conversation; 0 for a text.
        keys: 8 bytes of the digest.
        repeats: how often it is seen in one pass over the training data.
    """

    starts: Numbers
    lengths: Numbers
    supervised: Numbers
    keys: Keys
    repeats: Numbers
    is_chat: Mask
    is_held_back: Mask

    def __len__(self) -> int:
        return len(self.starts)

    def where(self, chosen: Mask) -> Table:
        """The rows for which `chosen` is true."""
        return Table(**{name: column[chosen] for name, column in vars(self).items()})


@dataclass
class _LongText:
    """A text that comes in pieces."""

    start: int
    digests: list[bytes] = field(default_factory=list)
    is_bad: bool = False


class Collection:
    """The documents kept so far."""

    def __init__(
        self, readings: Sequence[Reading], sink: TokenSink, *, drop_duplicates: bool
    ) -> None:
        self.counts = [Counter[str]() for _ in readings]
        self.examples: list[Problem] = []
        self._readings = readings
        self._sink = sink
        self._seen = Duplicates() if drop_duplicates else None
        self._long: _LongText | None = None
        self._lengths: list[Numbers] = []
        self._supervised: list[Numbers] = []
        self._digests: list[bytes] = []
        self._num_rows = [0 for _ in readings]

    def is_full(self, source: int) -> bool:
        """Whether `max_documents` of this source were kept."""
        return self._room(source) == 0

    def add(self, encoded: EncodedChunk) -> None:
        """Take the documents of the next chunk.

        Raises:
            DataError: it holds a record that is to stop the run.
        """
        source = encoded.chunk.source
        if self.is_full(source):
            return
        if not encoded.chunk.is_piece:
            self._add_documents(encoded)
            self.counts[source].update(encoded.counts)
        # a bad record behind the last one that is wanted does not matter
        if encoded.error is not None and not self.is_full(source):
            raise DataError(_stopped(encoded.error))
        if encoded.chunk.is_piece:
            self._add_piece(encoded)
        self.examples += encoded.examples[: MAX_EXAMPLES - len(self.examples)]

    def table(self) -> Table:
        """Everything kept."""
        per_source = np.array(self._num_rows, dtype=np.int64)
        keys = keys_of(b"".join(self._digests))
        lengths = _joined(self._lengths)
        weights = [reading.source.weight for reading in self._readings]
        bounds = np.cumsum(per_source)[:-1]
        repeats = [repeats_of(*pair) for pair in zip(np.split(keys, bounds), weights, strict=True)]
        return Table(
            starts=np.cumsum(lengths) - lengths,
            lengths=lengths,
            supervised=_joined(self._supervised),
            keys=keys,
            repeats=_joined(repeats),
            is_chat=np.repeat([r.is_chat for r in self._readings], per_source),
            is_held_back=np.repeat([r.is_held_back for r in self._readings], per_source),
        )

    def _add_documents(self, encoded: EncodedChunk) -> None:
        source, room = encoded.chunk.source, self._room(encoded.chunk.source)
        kept = np.zeros(len(encoded.lengths), dtype=np.bool_)
        for i in range(len(kept)):
            if room == 0:
                break
            digest = encoded.digests[i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES]
            if self._is_duplicate(source, digest):
                continue
            kept[i] = True
            self._digests.append(digest)
            room = None if room is None else room - 1
        of_token = slice(None) if kept.all() else np.repeat(kept, encoded.lengths)
        mask = None if encoded.mask is None else encoded.mask[of_token]
        self._sink.append(encoded.tokens[of_token], mask)
        self._add_rows(source, encoded.lengths[kept], encoded.supervised[kept])

    def _add_piece(self, encoded: EncodedChunk) -> None:
        chunk = encoded.chunk
        counts = self.counts[chunk.source]
        if chunk.start == 0:
            self._long = _LongText(self._sink.position)
        assert self._long is not None
        self._long.is_bad |= bool(encoded.counts["bad_record"])
        self._long.digests += [encoded.digests] if encoded.digests else []
        self._sink.append(encoded.tokens, None)
        counts["inexact_cuts"] += encoded.counts["inexact_cuts"]
        if chunk.is_last:
            counts["documents"] += 1
            self._close(self._long, chunk.source)

    def _close(self, text: _LongText, source: int) -> None:
        counts = self.counts[source]
        digest = b"" if text.is_bad else digest_of_pieces(text.digests)
        weight = self._readings[source].source.weight
        if text.is_bad:
            counts["bad_record"] += 1
        elif not repeats_of(keys_of(digest), weight)[0]:
            counts["not_sampled"] += 1
        elif not self._is_duplicate(source, digest):
            length = np.array([self._sink.position - text.start], dtype=np.int64)
            self._digests.append(digest)
            self._add_rows(source, length, np.zeros(1, dtype=np.int64))
            return
        self._sink.rewind(text.start)

    def _is_duplicate(self, source: int, digest: bytes) -> bool:
        if self._seen is None or self._seen.is_new(digest):
            return False
        self.counts[source]["duplicate"] += 1
        return True

    def _add_rows(self, source: int, lengths: Numbers, supervised: Numbers) -> None:
        self._lengths.append(lengths)
        self._supervised.append(supervised)
        self._num_rows[source] += len(lengths)
        counts = self.counts[source]
        counts["kept"] += len(lengths)
        counts["tokens"] += int(lengths.sum())
        counts["supervised_tokens"] += int(supervised.sum())

    def _room(self, source: int) -> int | None:
        limit = self._readings[source].source.max_documents
        return None if limit is None else max(0, limit - self._num_rows[source])


def _joined(columns: Sequence[Numbers]) -> Numbers:
    return np.concatenate([np.zeros(0, dtype=np.int64), *columns])


def _stopped(problem: Problem) -> str:
    place, reason = problem
    advice = "; set data.on_bad_record: skip to leave such records out"
    return f"{place}: {reason}{'' if 'data.overlong' in reason else advice}"
