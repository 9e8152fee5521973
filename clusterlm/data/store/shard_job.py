"""A shard to be made, how much of its source is wanted, and how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterlm.data.encode import EncodedSizes
from clusterlm.data.files import SourceFile
from clusterlm.data.formats.chunks import Chunk
from clusterlm.data.formats.units import Unit
from clusterlm.data.store.documents import Problem
from clusterlm.data.store.shard_writer import ShardWriter


@dataclass(frozen=True)
class Limit:
    """How much of a source is wanted.

    Attributes:
        first_record, end_record: of the source's records; None for all behind.
        num_documents: that can be used.
    """

    first_record: int = 0
    end_record: int | None = None
    num_documents: int | None = None


@dataclass
class ShardJob:
    """A shard to be made.

    Attributes:
        stamps: of the unit's files when their content was looked at.
    """

    root: Path
    unit: Unit
    is_masked: bool
    is_coded: bool
    limit: Limit
    stamps: tuple[tuple[int, int, int], ...]


def file_stamps(files: Sequence[SourceFile]) -> tuple[tuple[int, int, int], ...]:
    """Size and times of each file: the same, as long as nobody has written into it."""
    stats = [file.path.stat() for file in files]
    return tuple((s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in stats)


class Making:
    """A job under way."""

    def __init__(self, job: ShardJob, dtype: str) -> None:
        self.job = job
        self.writer = ShardWriter(job.root, dtype, is_masked=job.is_masked, is_coded=job.is_coded)
        self.ended: set[int] = set()
        self.is_closed = False
        self.is_issued = False
        self.num_out = 0
        self._num_records = 0
        self._num_documents = 0

    @property
    def is_done(self) -> bool:
        return self.is_issued and not self.num_out

    def matters(self, chunk: Chunk, problem: Problem) -> bool:
        """Whether a malformed record of the next chunk stands before the end of what is wanted."""
        limit = self.job.limit
        # a later piece belongs to a record that was counted with its first one
        counted = int(chunk.is_piece and chunk.start > 0)
        documents = self._num_documents + problem.documents_before - counted
        if limit.num_documents is not None and documents >= limit.num_documents:
            return False
        record = self._num_records + problem.record - counted
        return record >= limit.first_record and (
            limit.end_record is None or record < limit.end_record
        )

    def take(self, chunk: Chunk, sizes: EncodedSizes) -> bool:
        """Whether a settled chunk is wanted; closes the job when nothing behind it is."""
        if chunk.is_open and not sizes.num_records:
            # nothing comes behind the end of a file whose length was not known
            self.ended.add(chunk.first_file)
            return False
        if self.is_closed:
            return False
        limit = self.job.limit
        begins = not chunk.is_piece or chunk.start == 0
        if begins and self._num_records >= limit.first_record:
            self._num_documents += sizes.num_documents
        self._num_records += sizes.num_records
        has_all = limit.num_documents is not None and self._num_documents >= limit.num_documents
        is_behind = limit.end_record is not None and self._num_records >= limit.end_record
        # a long text that has begun is read to its end
        self.is_closed = (has_all or is_behind) and (not chunk.is_piece or chunk.is_last)
        return True
