"""Records that could not be used, copied aside to be mended: `quarantine.jsonl`.

A shard names only the first ones of each chunk, and counts all. So the chunks in which some were
counted are read again here, and their records converted again: one pass, and of a file without any
nothing is read. What is refused only later (a conversation in which nothing is trained) is copied
as far as the shard names it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clusterlm.data.convert import BadRecord, Converter, Dropped, converter_of
from clusterlm.data.files import SourceFile
from clusterlm.data.formats.chunks import Chunk, Record
from clusterlm.data.formats.packed import Unpacked
from clusterlm.data.formats.units import Unit, counts_records, units_of
from clusterlm.data.reading import Reading
from clusterlm.data.sources import place_of, read_records
from clusterlm.data.store.documents import BAD, Problem
from clusterlm.data.store.shards import ChunkRow, StoredShard
from clusterlm.spec.wording import printable

QUARANTINE = "quarantine.jsonl"


class Quarantined(NamedTuple):
    """How many records were copied, and how many were not."""

    num_copied: int
    num_missing: int


def write_quarantine(
    readings: Sequence[Reading], shards: Sequence[Sequence[StoredShard]], folder: Path
) -> Quarantined:
    """Copy malformed records into `folder`, one object each: source, place, reason, record.

    The record is its line; of a table the row as JSON, of a whole text nothing.
    """
    copied = missing = 0
    # a name of a file need not be Unicode
    path = folder / QUARANTINE
    with path.open("w", encoding="utf-8", errors="backslashreplace") as handle:
        for number, (reading, own) in enumerate(zip(readings, shards, strict=True)):
            source = _Source(reading, number)
            for shard, unit in zip(own, source.units(), strict=True):
                for row in source.rows(shard, unit):
                    handle.write(json.dumps(row, ensure_ascii=False) + "\n")
                    copied += 1
            missing += source.num_missing
    return Quarantined(copied, missing)


class _Source:
    """One source, gone through once, in reading order."""

    def __init__(self, reading: Reading, number: int) -> None:
        self._reading, self._number = reading, number
        self._convert: Converter | None = None
        self._lines: tuple[int, _Lines] | None = None
        self.num_missing = 0

    def units(self) -> list[Unit]:
        """The units of its shards; whether texts were cut makes no other units."""
        in_order = counts_records(self._reading.source)
        return units_of(self._reading.files, self._number, cuts_texts=False, in_order=in_order)

    def rows(self, shard: StoredShard, unit: Unit) -> Iterator[dict[str, str]]:
        """What is written of a shard."""
        if not shard.counts()[BAD]:
            return
        by_file: dict[int, list[ChunkRow]] = {}
        for row in shard.chunks:
            by_file.setdefault(unit.first_file + row.file, []).append(row)
        taken, ended = Counter[int](), set[int]()
        for chunk in unit.chunks(ended):
            # the chunks of a file are stored in order, as far as they were wanted
            rows, place = by_file.get(chunk.first_file, []), taken[chunk.first_file]
            taken[chunk.first_file] += 1
            if place >= len(rows):
                ended.add(chunk.first_file)
            elif chunk.format == "text" and len(chunk.files) == 1:
                yield from self._of_text(chunk, rows)
            elif rows[place].counts.get(BAD):
                yield from self._of_chunk(chunk, rows[place])

    def _of_text(self, chunk: Chunk, rows: Sequence[ChunkRow]) -> Iterator[dict[str, str]]:
        """One document, in one piece or in many: its first problem stands for it."""
        found = next((p for row in rows for p in row.problems if p.reason == BAD), None)
        if found is not None:
            record = Record(chunk.first_file, found.offset)
            yield self._row(record, found.detail)

    def _of_chunk(self, chunk: Chunk, row: ChunkRow) -> Iterator[dict[str, str]]:
        listed: dict[int, list[Problem]] = {}
        for problem in row.problems:
            if problem.reason == BAD:
                listed.setdefault(problem.record, []).append(problem)
        missing = row.counts[BAD]
        for number, record in enumerate(read_records(chunk)):
            known = listed.get(number, [])
            detail = known[0].detail if known else self._problem_of(record)
            if detail is not None:
                # of one record several conversations may have been counted
                missing -= max(1, len(known))
                yield self._row(record, detail)
        self.num_missing += max(0, missing)

    def _problem_of(self, record: Record) -> str | None:
        """Why a record cannot be used, if it cannot."""
        if record.problem is not None:
            return record.problem
        if self._convert is None:
            self._convert = converter_of(self._reading.source)
        try:
            self._convert(record.value)
        except Dropped:
            return None
        except BadRecord as bad:
            return str(bad)
        return None

    def _row(self, record: Record, detail: str) -> dict[str, str]:
        files = self._reading.files
        file = files[record.file]
        if file.format == "lines":
            line, text = self._line_at(record)
            place = f"{file.path}:{line}"
        else:
            place, text = place_of(files, record.file, record.offset), _as_text(record.value)
        return {
            "source": self._reading.place,
            "place": place,
            "reason": printable(detail),
            "record": text,
        }

    def _line_at(self, record: Record) -> tuple[int, str]:
        if self._lines is None or self._lines[0] != record.file:
            self._lines = record.file, _Lines(self._reading.files[record.file])
        return self._lines[1].at(record.offset)


class _Lines:
    """A file of lines, gone through once: number and text of some of its lines, in order."""

    def __init__(self, file: SourceFile) -> None:
        self._blocks = iter(Unpacked(file))
        self._held = b""
        # where the first byte held stands; the place reached in what is held, and its line
        self._begin, self._at, self._line = 0, 0, 1

    def at(self, offset: int) -> tuple[int, str]:
        """The line that begins at `offset`, which lies behind all that was asked for before."""
        while self._begin + len(self._held) <= offset and self._next():
            pass
        self._go_to(offset - self._begin)
        end = self._held.find(b"\n", self._at)
        if end < 0:
            end = self._hold_line()
        return self._line, self._held[self._at : end].decode(errors="replace")

    def _next(self) -> bool:
        """Go on to the next block."""
        self._go_to(len(self._held))
        self._begin += len(self._held)
        self._held, self._at = next(self._blocks, b""), 0
        return bool(self._held)

    def _go_to(self, place: int) -> None:
        self._line += self._held.count(b"\n", self._at, place)
        self._at = place

    def _hold_line(self) -> int:
        """Read on until the whole line is held; where it ends."""
        parts = [self._held[self._at :]]
        while b"\n" not in parts[-1] and (block := next(self._blocks, None)) is not None:
            parts.append(block)
        self._begin += self._at
        self._held, self._at = b"".join(parts), 0
        end = self._held.find(b"\n")
        return end if end >= 0 else len(self._held)


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        # the text of a whole file, which stands there already
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):
        return ""
