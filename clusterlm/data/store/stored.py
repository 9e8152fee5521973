"""The documents that lie in the shards, as one table. Tokens stay where they are.

Every shard has its range of addresses, one behind the other in reading order; a document is an
address and a length. What is dropped later is only left out of the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from clusterlm.data.dedup import digest_of_pieces
from clusterlm.data.reading import Reading
from clusterlm.data.store.documents import (
    BAD,
    BROKEN,
    CONTINUES,
    CONVERSATION,
    Mask,
    Numbers,
)
from clusterlm.data.store.shards import StoredShard
from clusterlm.data.summary import REASONS
from clusterlm.data.table import Table


@dataclass(frozen=True)
class Stored:
    """Documents of all shards, in reading order.

    Attributes:
        table: one row each.
        digests: (documents, 2) uint64.
        file, offset: where each record stands, in the files of its source.
        domain: place in `domains`, -1 for none.
        counts: by source: what was read, and what was left out, by reason.
    """

    table: Table
    digests: np.ndarray[tuple[int, int], np.dtype[np.uint64]]
    file: Numbers
    offset: Numbers
    domain: Numbers
    domains: list[str]
    counts: list[Counter[str]]

    def where(self, chosen: Mask) -> Stored:
        """The rows for which `chosen` is true; counts stay."""
        return Stored(
            self.table.where(chosen),
            self.digests[chosen],
            self.file[chosen],
            self.offset[chosen],
            self.domain[chosen],
            self.domains,
            self.counts,
        )

    def drop(self, dropped: Mask, reason: str) -> Stored:
        """Leave rows out, and count them by source."""
        for source, number in enumerate(np.bincount(self.table.source[dropped])):
            if number:
                self.counts[source][reason] += int(number)
        return self.where(~dropped)


@dataclass(frozen=True)
class _Rows:
    """Documents of one source."""

    start: Numbers
    length: Numbers
    trained: Numbers
    digest: np.ndarray[tuple[int, int], np.dtype[np.uint64]]
    file: Numbers
    offset: Numbers
    record: Numbers
    domain: Numbers
    flags: Numbers

    def where(self, chosen: Mask | Numbers) -> _Rows:
        return _Rows(*(getattr(self, f.name)[chosen] for f in fields(self)))


def read_stored(readings: Sequence[Reading], shards: Sequence[Sequence[StoredShard]]) -> Stored:
    """The documents of all sources, as far as rows and limits ask for them.

    Args:
        readings: in reading order.
        shards: of each of them.
    """
    base = 0
    domains: dict[str, int] = {}
    rows: list[_Rows] = []
    counts: list[Counter[str]] = []
    for reading, own in zip(readings, shards, strict=True):
        pieces = _rows_of(own, base, domains)
        found = _joined(pieces)
        base += sum(shard.num_tokens for shard in own)
        tally = sum((shard.counts() for shard in own), Counter[str]())
        # of a long text each broken piece was counted, and it is one document
        tally[BAD] -= _num_broken(pieces) - _num_broken(found)
        found = found.where(found.flags & BROKEN == 0)
        tally["documents"] = len(found.start) + sum(tally[reason] for reason in REASONS)
        num_records = sum(chunk.num_records for shard in own for chunk in shard.chunks)
        wanted = _wanted(reading, found, num_records)
        tally["not_asked_for"] += int(np.count_nonzero(~wanted))
        rows.append(found.where(wanted))
        counts.append(tally)
    return _stored(readings, rows, list(domains), counts)


def _rows_of(shards: Sequence[StoredShard], base: int, domains: dict[str, int]) -> _Rows:
    """The rows of one source as they are stored; `domains` grows."""
    parts = [_empty()]
    records = 0
    for shard in shards:
        documents = shard.documents()
        for chunk in shard.chunks:
            own = documents[chunk.document_start : chunk.document_start + chunk.num_documents]
            lengths = own["length"].astype(np.int64)
            names = [domains.setdefault(name, len(domains)) for name in chunk.domains]
            # NO_DOMAIN -> -1, whatever the chunk has
            table = np.array([*names, -1], dtype=np.int64)
            parts.append(
                _Rows(
                    start=base + chunk.token_start + np.cumsum(lengths) - lengths,
                    length=lengths,
                    trained=own["trained"].astype(np.int64),
                    digest=own["digest"],
                    file=shard.first_file + chunk.file + own["file"].astype(np.int64),
                    offset=own["offset"].astype(np.int64),
                    record=records + own["record"].astype(np.int64),
                    domain=table[np.minimum(own["domain"], len(names))],
                    flags=own["flags"].astype(np.int64),
                )
            )
            records += chunk.num_records
        base += shard.num_tokens
    return _concatenated(parts)


def _joined(rows: _Rows) -> _Rows:
    """Pieces of a long text become one document; their tokens lie behind each other."""
    continues = rows.flags & CONTINUES != 0
    if not continues.any():
        return rows
    first = np.flatnonzero(~continues)
    joined = rows.where(first)
    length = np.add.reduceat(rows.length, first)
    flags = np.bitwise_or.reduceat(rows.flags, first) & ~CONTINUES
    digest = joined.digest.copy()
    ends = np.append(first[1:], len(continues))
    for document in np.flatnonzero(ends - first > 1):
        pieces = rows.digest[first[document] : ends[document]]
        whole = digest_of_pieces([piece.tobytes() for piece in pieces if piece.any()])
        digest[document] = np.frombuffer(whole, dtype="<u8")
    return replace(joined, length=length, flags=flags, digest=digest)


def _num_broken(rows: _Rows) -> int:
    return int(np.count_nonzero(rows.flags & BROKEN))


def _wanted(reading: Reading, rows: _Rows, num_records: int) -> Mask:
    """Which documents the source's `split` and `max_documents` ask for."""
    wanted = np.ones(len(rows.start), dtype=np.bool_)
    if reading.rows is not None:
        first, end = reading.rows.resolve(num_records)
        wanted &= rows.record >= first
        if end is not None:
            wanted &= rows.record < end
    if reading.source.max_documents is not None:
        wanted &= np.cumsum(wanted) <= reading.source.max_documents
    return wanted


def _stored(
    readings: Sequence[Reading],
    rows: Sequence[_Rows],
    domains: list[str],
    counts: list[Counter[str]],
) -> Stored:
    everything = _concatenated([_empty(), *rows])
    sizes = [len(own.start) for own in rows]
    held_back = np.array([reading.is_held_back for reading in readings], dtype=np.bool_)
    table = Table(
        starts=everything.start,
        lengths=everything.length,
        trained=everything.trained,
        keys=everything.digest[:, 0].astype(np.uint64),
        source=np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
        is_chat=everything.flags & CONVERSATION != 0,
        is_held_back=np.repeat(held_back, sizes),
    )
    places = (everything.file, everything.offset, everything.domain)
    return Stored(table, everything.digest, *places, domains, counts)


def _empty() -> _Rows:
    none = np.zeros(0, dtype=np.int64)
    digest = np.zeros((0, 2), dtype=np.uint64)
    return _Rows(none, none, none, digest, none, none, none, none, none)


def _concatenated(parts: Sequence[_Rows]) -> _Rows:
    names = [field.name for field in fields(_Rows)]
    return _Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
