"""Which rows of a source are taken: `train[:1000]`, `[10%:20%]`, `[-500:]`.

Rows are counted in the order of reading over all files of the source, before any filter: a record
that is left out, or cannot be read, counts too, so that a slice means the same rows whatever else
is asked of them. The rules are those of `datasets`: percent are rounded to the nearest row, what
lies behind the end is the end.

For the encoder: a source with a slice is one unit, read in order. `[:1000]` and `[5:10]` are
settled as they come, and reading ends at `stop`. A slice that `needs_total` (percent, or counted
from the end) takes two passes: the sum of `sources.count_records` over the chunks, in any order,
then `resolve(total)`. A long text in pieces is one row, counted with its first piece.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from clusterlm.errors import DataError

_SLICE = re.compile(r"(?P<name>[^\[\]]*)(?:\[(-?\d+)?(%)?:(-?\d+)?(%)?\])?")


@dataclass(frozen=True)
class RowSlice:
    """Rows [start, stop), as they were written: None is the beginning or the end."""

    start: int | None = None
    stop: int | None = None
    is_percent: bool = False

    @property
    def needs_total(self) -> bool:
        """Whether it must be known first how many rows there are."""
        ends = [end for end in (self.start, self.stop) if end is not None]
        return bool(ends) and (self.is_percent or min(ends) < 0)

    def resolve(self, total: int | None = None) -> tuple[int, int | None]:
        """The first row, and the one behind the last; None when it goes on to the end.

        Args:
            total: how many rows there are; may be left out unless `needs_total`.
        """
        if total is None:
            assert not self.needs_total, "this slice can be resolved only with the total"
            return self.start or 0, self.stop
        return self._row(self.start, 0, total), self._row(self.stop, total, total)

    def _row(self, end: int | None, left_out: int, total: int) -> int:
        if end is None:
            return left_out
        row = round(end * total / 100) if self.is_percent else end
        return min(max(row + total, 0) if row < 0 else row, total)


def parse_split(text: str | None) -> tuple[str | None, RowSlice | None]:
    """The name of the split and the rows; None for what is not said.

    Raises:
        DataError: it is no split, or mixes rows and percent.
    """
    found = _SLICE.fullmatch(text or "")
    if found is None:
        raise DataError(f"split {text!r}: write a name, rows, or both: train, [:1000], train[10%:]")
    name, start, start_pct, stop, stop_pct = found.groups()
    # a bare % is a typo; rows and percent in one would each be read as percent by `datasets`
    units = {bool(pct) for value, pct in ((start, start_pct), (stop, stop_pct)) if value}
    is_bare = any(pct and not value for value, pct in ((start, start_pct), (stop, stop_pct)))
    if len(units) > 1 or is_bare:
        raise DataError(f"split {text!r}: give both ends as rows or both as percent")
    is_percent = True in units
    ends = [int(value) if value else None for value in (start, stop)]
    if is_percent and any(abs(end) > 100 for end in ends if end is not None):
        raise DataError(f"split {text!r}: percent lie between -100 and 100")
    # [:] is every row, as without it
    has_rows = ends != [None, None]
    rows = RowSlice(ends[0], ends[1], is_percent=is_percent)
    return name or None, rows if has_rows else None
