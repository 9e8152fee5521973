"""Records that were left out, by name, to be listed for people.

A chunk names the first ones only; they are read off the shards, the sources are not read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from clusterlm.data.reading import Reading
from clusterlm.data.sources import place_of
from clusterlm.data.store.shards import StoredShard
from clusterlm.spec.wording import printable


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
            yield LeftOut(reading.place, place, problem.reason, printable(problem.detail))
