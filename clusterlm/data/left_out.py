"""Records that were left out, by name: listed for people, or copied aside to be mended.

A chunk names the first ones of each kind only; they are read off the shards, the sources are not
read again but for the copies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from clusterlm.data.reading import Reading
from clusterlm.data.sources import place_of, raw_record
from clusterlm.data.store.documents import BAD
from clusterlm.data.store.shards import StoredShard

QUARANTINE = "quarantine.jsonl"


class LeftOut(NamedTuple):
    """A record, where it stands and why it is not trained on."""

    source: str
    place: str
    reason: str
    detail: str


def left_out(
    readings: Sequence[Reading],
    shards: Sequence[Sequence[StoredShard]],
    *,
    reason: str | None = None,
    limit: int | None = None,
) -> Iterator[LeftOut]:
    """Records that were left out, in reading order.

    Args:
        readings: the sources.
        shards: of each of them.
        reason: only this one; None for all.
        limit: no more of each source than this.
    """
    for reading, own in zip(readings, shards, strict=True):
        problems = [
            problem
            for shard in own
            for problem in shard.problems()
            if reason in (None, problem.reason)
        ]
        for problem in problems[:limit]:
            place = place_of(reading.files, problem.file, problem.offset)
            yield LeftOut(reading.place, place, problem.reason, problem.detail)


def write_quarantine(
    readings: Sequence[Reading], shards: Sequence[Sequence[StoredShard]], folder: Path
) -> int:
    """Copy malformed records into `folder`, one object each: source, place, reason, record.

    Returns:
        How many were copied.
    """
    count = 0
    with (folder / QUARANTINE).open("w", encoding="utf-8") as handle:
        for reading, own in zip(readings, shards, strict=True):
            for problem in (p for shard in own for p in shard.problems() if p.reason == BAD):
                row = {
                    "source": reading.place,
                    "place": place_of(reading.files, problem.file, problem.offset),
                    "reason": problem.detail,
                    "record": raw_record(reading.files[problem.file], problem.offset),
                }
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
    return count
