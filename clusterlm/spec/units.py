"""Durations, Slurm times, sizes and counts: the one place that reads them.

    "90s" "30m" "2h" "1d12h"      durations, to seconds
    "4-23:59:59" "3:50:00" "30"   Slurm times, to seconds (a bare number is minutes, as in sbatch)
    "64G" "1.5T" "512M"           sizes, to MiB
    "20M" "1_000_000" "2e9"       counts

YAML 1.1 reads 12:30:00 as the base-60 number 45000; `document.py` keeps such scalars as text, so
what arrives here is what the user typed. Written back (spec.json) a value carries its unit,
`3600s`, so that it is read as what it was.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from clusterlm.spec.wording import shown

LONGEST_S = 3650 * 86400
LONGEST_TEXT = 40

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MIB = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}
_COUNT = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
_FLAGS = {"yes": True, "on": True, "no": False, "off": False}

_CLOCK = r"(?:(\d+)-)?(\d+):(\d{1,2})(?::(\d{1,2}))?"
_DURATION = r"(?:\d+(?:\.\d+)?\s*[smhd]\s*)+"


def seconds_of(value: object) -> int:
    """Seconds of a duration or Slurm time.

    Raises:
        ValueError: it is neither, or longer than ten years; the text says what is accepted.
    """
    seconds = _seconds(_short_text(value))
    if seconds is None or seconds <= 0:
        raise ValueError(f"{shown(value)} is no duration; write 30m, 3h, 2d or Slurm's 1-12:00:00")
    if seconds > LONGEST_S:
        raise ValueError(f"{shown(value)} is longer than ten years; a bare number is minutes")
    return seconds


def _seconds(text: str) -> int | None:
    if match := re.fullmatch(_CLOCK, text, re.ASCII):
        return _clock_seconds(*match.groups())
    if match := re.fullmatch(r"(\d+)-(\d+)", text, re.ASCII):  # days-hours
        return int(match[1]) * 86400 + int(match[2]) * 3600 if int(match[2]) < 24 else None
    if re.fullmatch(r"\d+", text, re.ASCII):
        return int(text) * 60
    if re.fullmatch(_DURATION, text, re.ASCII):
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", text, re.ASCII)
        return round(sum(float(number) * _SECONDS[unit] for number, unit in parts))
    return None


def _clock_seconds(days: str | None, first: str, second: str, third: str | None) -> int | None:
    # as sbatch reads it: D-HH:MM[:SS], HH:MM:SS, or MM:SS
    if days is not None or third is not None:
        hours, minutes, secs = int(first), int(second), int(third or 0)
    else:
        hours, minutes, secs = 0, int(first), int(second)
    if secs > 59 or (third is not None and minutes > 59) or (days is not None and hours > 23):
        return None
    if days is not None and minutes > 59:
        return None
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + secs


def mebibytes_of(value: object) -> int:
    """MiB of a size such as 64G; a bare number is refused because its unit would be a guess."""
    pattern = r"(\d{1,15}(?:\.\d+)?)\s*([KMGT])(?:i?B)?"
    match = re.fullmatch(pattern, _short_text(value), re.ASCII | re.IGNORECASE)
    if not match or (mib := round(float(match[1]) * _MIB[match[2].upper()])) < 1:
        raise ValueError(f"{shown(value)} is no size; write 512M, 64G or 1.5T")
    return mib


def count_of(value: object) -> int:
    """A whole number, also written 20M, 1_000_000 or 2e9."""
    text = "" if isinstance(value, bool) else _short_text(value).replace("_", "")
    pattern = r"(\d{1,18}(?:\.\d+)?(?:e\+?\d{1,2})?)\s*([KMBGT]?)"
    if match := re.fullmatch(pattern, text, re.ASCII | re.IGNORECASE):
        # a float cannot hold every whole number above 2**53
        if match[1].isdigit():
            return int(match[1]) * _COUNT[match[2].upper()]
        number = float(match[1]) * _COUNT[match[2].upper()]
        if number == int(number):
            return int(number)
    raise ValueError(f"{shown(value)} is no count; write 500, 20K, 3M or 1B")


def flag_of(value: object) -> bool:
    """Read true or false; yes, no, on and off are read too, as in YAML 1.1."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _FLAGS:
        return _FLAGS[value.lower()]
    raise ValueError(f"{shown(value)} is neither true nor false")


def _short_text(value: object) -> str:
    # a bool is no number here, and text of any length must cost nothing
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    if isinstance(value, int) and value.bit_length() > 64:
        return ""
    text = str(value).strip()
    return text if len(text) <= LONGEST_TEXT else ""


def slurm_time(seconds: int) -> str:
    """`D-HH:MM:SS`, as sbatch reads it; sbatch rounds seconds up to a minute."""
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{days}-{hours:02}:{minutes:02}:{secs:02}"


def spoken(seconds: float) -> str:
    """A duration for people: 42 s, 3 min, 2 h 05 min, 3 d 4 h."""
    whole = int(seconds)
    if whole < 90:
        return f"{whole} s"
    if whole < 5400:
        return f"{whole // 60} min"
    if whole < 2 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def counted(number: float) -> str:
    """A large number for people, in three digits: 235B, 41.9M, 200K."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def _with_seconds(seconds: int) -> str:
    return f"{seconds}s"


def _with_mebibytes(mebibytes: int) -> str:
    return f"{mebibytes}M"


Seconds = Annotated[int, BeforeValidator(seconds_of), PlainSerializer(_with_seconds)]
MiB = Annotated[int, BeforeValidator(mebibytes_of), PlainSerializer(_with_mebibytes)]
Count = Annotated[int, BeforeValidator(count_of)]
Flag = Annotated[bool, BeforeValidator(flag_of)]
