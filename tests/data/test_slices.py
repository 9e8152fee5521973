from __future__ import annotations

import pytest
from datasets import ReadInstruction
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.data.formats.slices import RowSlice, parse_split
from clusterlm.errors import DataError


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, (None, None)),
        ("train", ("train", None)),
        ("train[:1000]", ("train", RowSlice(None, 1000))),
        ("[10%:20%]", (None, RowSlice(10, 20, is_percent=True))),
        ("[-500:]", (None, RowSlice(-500, None))),
        ("validation.matched-2[5:]", ("validation.matched-2", RowSlice(5, None))),
        ("train[:]", ("train", None)),
    ],
)
def test_a_split_is_a_name_and_rows(
    text: str | None, told: tuple[str | None, RowSlice | None]
) -> None:
    assert parse_split(text) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[10%:20]", "both ends as rows or both as percent"),
        ("[%:20%]", "both ends as rows or both as percent"),
        ("[:101%]", "between -100 and 100"),
        ("train[5]", "write a name, rows, or both"),
    ],
)
def test_what_is_no_split_is_told(text: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        parse_split(text)


ends = st.one_of(st.none(), st.integers(-100, 100))


@given(start=ends, stop=ends, is_percent=st.booleans(), total=st.integers(0, 300))
def test_rows_are_those_that_datasets_takes(
    start: int | None, stop: int | None, is_percent: bool, total: int
) -> None:
    mark = "%" if is_percent else ""
    text = "".join(
        ["t[", f"{start}{mark}" * (start is not None), ":", f"{stop}{mark}" * (stop is not None)]
    )
    _, rows = parse_split(f"{text}]")
    if rows is None:
        assert start is None
        assert stop is None
        return
    [asked] = ReadInstruction.from_spec(f"{text}]").to_absolute({"t": total})
    assert rows.resolve(total) == (asked.from_, asked.to)
    if not rows.needs_total:
        first, behind = rows.resolve()
        assert list(range(total))[first:behind] == list(range(total))[asked.from_ : asked.to]


def test_percent_and_rows_from_the_end_need_the_total() -> None:
    assert [RowSlice(*ends).needs_total for ends in [(None, 5), (5, 9), (-5, None), (0, -1)]] == [
        *(False, False, True, True)
    ]
    assert RowSlice(10, None, is_percent=True).needs_total
