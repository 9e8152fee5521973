"""Records that are not trained on, out of the cache: with place, reason and what was found.

What is not taken after reading (duplicates, what does not fit a block) has no place there: it is
counted only, by source or by split.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterlm.data.fingerprint import describe, fingerprint_of_parts
from clusterlm.data.left_out import LeftOut, left_out
from clusterlm.data.looks.stats import shards_by_source
from clusterlm.data.reading import Reading, reading_order
from clusterlm.data.store.shards import StoredShard
from clusterlm.data.summary import CHOICES, PLANNED, REASONS
from clusterlm.data.whole import Manifest, read_manifest
from clusterlm.errors import DataError
from clusterlm.spec.data import Data
from clusterlm.spec.wording import did_you_mean, shown

CHANGED = (
    "the sources are no longer what they were: records are named by the number of their file and"
    " their place in it"
)


@dataclass(frozen=True)
class Dropped:
    """What was left out.

    Attributes:
        records: the first ones, in reading order.
        counts: all of them, by reason; also those that are counted only.
        num_known: how many of them have a place.
        planned: of each split, documents that are in no block or only in part, by reason; of all
            sources together.
    """

    records: list[LeftOut]
    counts: dict[str, int]
    num_known: int
    planned: dict[str, dict[str, int]]
    notes: list[str]


def dropped_of(
    root: Path, data: Data, places: Sequence[str], *, reason: str | None, limit: int
) -> Dropped:
    """Look at what was left out of prepared data.

    Args:
        root: `<cache>/<fingerprint>`.
        data: the spec that it was made for.
        places: of the sources to look at, in the YAML.
        reason: only this one.
        limit: so many records.

    Raises:
        CacheNotReady: it is not there, or damaged.
        DataError: there is no such reason.
    """
    reasons = REASONS | CHOICES | PLANNED
    if reason is not None and reason not in reasons:
        raise DataError(f"no reason {shown(reason)}; {did_you_mean(reason, reasons)}")
    manifest = read_manifest(root)
    counts: dict[str, int] = {}
    for row in manifest["sources"]:
        for key, number in row["dropped"].items():
            if row["place"] in places and reason in (None, key):
                counts[key] = counts.get(key, 0) + number
    all_places = [row["place"] for row in manifest["sources"]]
    shards = shards_by_source(root, manifest, all_places)
    own = {p: s for p, s in zip(all_places, shards, strict=True) if p in places}
    num_known = sum(
        reason in (None, problem.reason)
        for some in own.values()
        for shard in some
        for problem in shard.problems()
    )
    readings = _readings(data, manifest["fingerprint"])
    mine = [reading for reading in readings or [] if reading.place in own]
    rows = left_out(mine, [own[reading.place] for reading in mine], reason=reason)
    records = list(itertools.islice(rows if readings else _unplaced(own, reason), limit))
    is_whole = set(all_places) <= set(places)
    planned = _planned(manifest, reason) if is_whole or reason in PLANNED else {}
    notes = [] if readings is not None else [CHANGED]
    return Dropped(records, counts, num_known, planned, notes)


def _planned(manifest: Manifest, reason: str | None) -> dict[str, dict[str, int]]:
    splits = {
        name: {k: n for k, n in split["dropped"].items() if n and reason in (None, k)}
        for name, split in manifest["splits"].items()
    }
    return {name: counts for name, counts in splits.items() if counts}


def _readings(data: Data, fingerprint: str) -> list[Reading] | None:
    """The sources; None when they are not those that the data was made of."""
    try:
        if fingerprint_of_parts(describe(data)) != fingerprint:
            return None
        return reading_order(data)
    except DataError:
        return None


def _unplaced(shards: dict[str, list[StoredShard]], reason: str | None) -> list[LeftOut]:
    return [
        LeftOut(place, f"{place}, file {p.file + 1}, at {p.offset:,}", p.reason, p.detail)
        for place, own in shards.items()
        for shard in own
        for p in shard.problems()
        if reason in (None, p.reason)
    ]
