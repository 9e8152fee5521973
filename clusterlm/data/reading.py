"""The sources in the order of reading, each with the shards that it needs.

What is held back is read first, then the sources in the order of the YAML: of two copies of a
document the first one read is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterlm.data.files import SourceFile
from clusterlm.data.fingerprint import hash_of, source_options, sources_of
from clusterlm.data.formats.hub import resolve_files
from clusterlm.data.formats.slices import RowSlice, parse_split
from clusterlm.data.formats.units import Unit, counts_records, units_of
from clusterlm.data.hashes import HashMemo
from clusterlm.data.kinds.filters import has_filter
from clusterlm.data.store.shard_job import Limit, ShardJob, file_stamps
from clusterlm.data.store.shards import FORMAT
from clusterlm.data.targets import is_coded, weight_table
from clusterlm.data.tokenizer import Vocabulary
from clusterlm.paths import cache_dir
from clusterlm.spec.data import Data
from clusterlm.spec.sources import ConversationSource, Source

ENCODING = 2
"""Raise it when the same source would give other tokens than before."""


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
    def is_conversation(self) -> bool:
        return isinstance(self.source, ConversationSource)

    @property
    def weights(self) -> tuple[float, ...]:
        """What the codes of its tokens mean; () where a bit is enough."""
        source = self.source
        coded = isinstance(source, ConversationSource) and is_coded(source)
        return weight_table(source) if isinstance(source, ConversationSource) and coded else ()

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)

    @property
    def rows(self) -> RowSlice | None:
        """Which of its records are wanted."""
        return parse_split(self.source.split)[1]

    @property
    def limit(self) -> Limit:
        """Where its reading may end. A slice from the end needs everything read."""
        rows = self.rows
        if rows is None or rows.needs_total:
            return Limit(num_documents=None if rows else self.source.max_documents)
        first, end = rows.resolve()
        return Limit(first, end, self.source.max_documents)


def reading_order(data: Data) -> list[Reading]:
    """All sources, what is held back first.

    Raises:
        DataError: a source is not there.
    """
    readings = [
        Reading(place, source, resolve_files(source), is_held_back=i >= len(data.sources))
        for i, (place, source) in enumerate(sources_of(data))
    ]
    return sorted(readings, key=lambda reading: not reading.is_held_back)


def source_keys(
    readings: Sequence[Reading], vocabulary: Vocabulary, dtype: str, *, may_cut: bool
) -> tuple[str, ...]:
    """Of each source: what makes tokens of its content, as a hash."""
    memo = HashMemo(cache_dir() / ".hashes.json")
    words = {
        "tokenizer": memo.hash_of(vocabulary.folder / "tokenizer.json"),
        "around": [vocabulary.eos_id, list(vocabulary.prefix)],
    }
    # a template says nothing to a text
    all_of_it = {**words, "template": vocabulary.template, "specials": vocabulary.specials}
    return tuple(
        hash_of(
            {
                "format": FORMAT,
                "encoding": ENCODING,
                "dtype": dtype,
                "may_cut": may_cut,
                "tokenizer": all_of_it if reading.is_conversation else words,
                "options": source_options(reading.source),
            }
        )
        for reading in readings
    )


def shard_jobs(
    readings: Sequence[Reading], keys: Sequence[str], shards: Path, *, cuts_texts: bool
) -> list[list[ShardJob]]:
    """The shards of each source, in reading order; which of them are there is not looked at.

    Args:
        readings: the sources.
        keys: of each.
        shards: their folder.
        cuts_texts: long texts are read in pieces.
    """
    memo = HashMemo(cache_dir() / ".hashes.json")
    jobs: list[list[ShardJob]] = []
    for number, (reading, key) in enumerate(zip(readings, keys, strict=True)):
        in_order = counts_records(reading.source)
        # a filter looks at a whole text, so that is read at once
        in_pieces = cuts_texts and not has_filter(reading.source)
        units = units_of(reading.files, number, cuts_texts=in_pieces, in_order=in_order)
        jobs.append([_job(reading, unit, key, shards, memo) for unit in units])
    memo.save()
    return jobs


def _job(reading: Reading, unit: Unit, key: str, shards: Path, memo: HashMemo) -> ShardJob:
    limit = reading.limit
    # before the content is looked at, so that a change in between shows
    stamps = file_stamps(unit.files)
    parts = [key, unit.key_parts(memo), None if limit == Limit() else vars(limit)]
    return ShardJob(
        root=shards / hash_of(parts),
        unit=unit,
        is_masked=reading.is_conversation,
        is_coded=bool(reading.weights),
        limit=limit,
        stamps=stamps,
    )
