from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.spec.units import (
    LONGEST_S,
    count_of,
    flag_of,
    mebibytes_of,
    seconds_of,
    slurm_time,
    spoken,
)


@given(st.integers(1, LONGEST_S))
def test_a_slurm_time_reads_back_as_the_same_seconds(seconds: int) -> None:
    assert seconds_of(slurm_time(seconds)) == seconds


@given(st.integers(1, 3650), st.integers(1, 23), st.integers(1, 59), st.integers(1, 59))
def test_parts_of_a_duration_add_up(days: int, hours: int, minutes: int, secs: int) -> None:
    total = min(days, 3649) * 86400 + hours * 3600 + minutes * 60 + secs
    assert seconds_of(f"{min(days, 3649)}d{hours}h {minutes}m{secs}s") == total


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("1.5h", 5400),
        ("2d", 172800),
        ("1d12h", 129600),
        ("4-23:59:59", 431999),
        ("1-12:00", 129600),
        ("2-6", 194400),
        ("12:30:00", 45000),
        ("100:00:00", 360000),
        ("3:50", 230),
        ("30", 1800),
        (30, 1800),
    ],
)
def test_every_documented_form_of_a_duration_is_read(written: object, seconds: int) -> None:
    assert seconds_of(written) == seconds


@pytest.mark.parametrize(
    "written",
    ["", "3 hors", "0", 0, -5, "0:00", "-1h", "1:60", "1:60:00", "1-24:00:00", "1-00:60", "1-25"]
    + ["5y", "h", "1h30", True, None, 1.5, [], {}, "9" * 5000, "1e3", "11y", "99999d", "٣h"],
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="duration|ten years"):
        seconds_of(written)


@given(st.text() | st.integers() | st.floats() | st.booleans() | st.none())
def test_a_unit_gives_a_number_or_a_value_error_whatever_it_reads(written: object) -> None:
    for read in (seconds_of, mebibytes_of, count_of):
        try:
            said = f"{read(written):d}"
        except ValueError as error:
            said = str(error)
        assert said.isprintable()


@pytest.mark.parametrize(
    ("written", "mebibytes"),
    [
        ("64G", 65536),
        ("1.5T", 1572864),
        ("512M", 512),
        ("2048K", 2),
        ("16GiB", 16384),
        ("1 g", 1024),
    ],
)
def test_every_documented_form_of_a_size_is_read(written: str, mebibytes: int) -> None:
    assert mebibytes_of(written) == mebibytes


@pytest.mark.parametrize("written", ["64", 64, "G", "-1G", "1P", "1K", "9" * 400 + "T", True, None])
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="is no size"):
        mebibytes_of(written)


@pytest.mark.parametrize(
    ("written", "number"),
    [("20M", 20_000_000), ("1_000_000", 10**6), ("2e9", 2 * 10**9), (2e9, 2 * 10**9), (7, 7)]
    + [("1.5K", 1500), ("9007199254740993", 9007199254740993), (1e18, 10**18)],
)
def test_every_documented_form_of_a_count_is_read(written: object, number: int) -> None:
    assert count_of(written) == number


@pytest.mark.parametrize("written", ["1.5", 0.5, "-3", True, "many", None, "1e400", "9" * 4000])
def test_what_is_no_count_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="is no count"):
        count_of(written)


def test_yaml_words_for_true_and_false_are_flags() -> None:
    assert [flag_of(w) for w in ("yes", "On", "no", "OFF", True)] == [
        True,
        True,
        False,
        False,
        True,
    ]
    with pytest.raises(ValueError, match="neither true nor false"):
        flag_of("maybe")
    with pytest.raises(ValueError, match="neither true nor false"):
        flag_of(1)


def test_durations_are_spoken_in_two_units_at_most() -> None:
    spoken_times = [spoken(s) for s in (42, 200, 7500, 273_600)]
    assert spoken_times == ["42 s", "3 min", "2 h 05 min", "3 d 4 h"]
