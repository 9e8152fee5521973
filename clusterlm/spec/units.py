"""Durations, Slurm times, sizes and counts: the one place that reads them.

    "90s" "30m" "2h" "1d12h"      durations, to seconds
    "4-23:59:59" "3:50:00" "30"   Slurm times, to seconds (a bare number is minutes, as in sbatch)
    "64G" "1.5T" "512M"           sizes, to MiB
    "20M" "1_000_000" "2e9"       counts

YAML 1.1 reads 12:30:00 as the base-60 number 45000; `load.py` keeps such scalars as text, so what
arrives here is what the user typed.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MIB = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}
_COUNT = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}


def seconds_of(value: object) -> int:
    """Seconds of a duration or Slurm time.

    Raises:
        ValueError: it is neither; the text says what is accepted.
    """
    text = str(value).strip()
    if match := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d{1,2})(?::(\d{1,2}))?", text):
        return _clock(text, *match.groups())
    if match := re.fullmatch(r"(\d+)-(\d+)", text):  # days-hours
        return int(match[1]) * 86400 + int(match[2]) * 3600
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value * 60
    if re.fullmatch(r"\d+", text) and int(text) > 0:
        return int(text) * 60
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", text)
    if parts and re.fullmatch(r"(\d+(?:\.\d+)?\s*[smhd]\s*)+", text):
        total = round(sum(float(n) * _SECONDS[u] for n, u in parts))
        if total > 0:
            return total
    raise ValueError(f'"{text}" is no duration; write 30m, 3h, 2d or Slurm\'s 1-12:00:00')


def _clock(text: str, days: str | None, first: str, second: str, third: str | None) -> int:
    # as sbatch reads it: D-HH:MM[:SS], HH:MM:SS, or MM:SS
    if days is not None or third is not None:
        hours, minutes, secs = int(first), int(second), int(third or 0)
    else:
        hours, minutes, secs = 0, int(first), int(second)
    if secs > 59 or (third is not None and minutes > 59) or (days is not None and hours > 23):
        raise ValueError(f'"{text}" is no time of day-hours:minutes:seconds; write 1-12:00:00')
    total = int(days or 0) * 86400 + hours * 3600 + minutes * 60 + secs
    if total <= 0:
        raise ValueError(f'"{text}" is no time at all; write at least 1:00 (one minute)')
    return total


def mebibytes_of(value: object) -> int:
    """MiB of a size such as 64G; a bare number is refused because its unit would be a guess."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])(?:i?B)?", str(value).strip(), re.IGNORECASE)
    if not match or (mib := round(float(match[1]) * _MIB[match[2].upper()])) < 1:
        raise ValueError(f'"{value}" is no size; write 512M, 64G or 1.5T')
    return mib


def count_of(value: object) -> int:
    """A whole number, also written 20M, 1_000_000 or 2e9."""
    if isinstance(value, bool):
        raise ValueError(f'"{value}" is no count; write 500, 20K, 3M or 1B')
    text = str(value).strip().replace("_", "")
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d{1,2})?)\s*([KMBGT]?)", text, re.IGNORECASE)
    if match:
        number = float(match[1]) * _COUNT[match[2].upper()]
        if number == int(number):
            return int(match[1]) if match[1].isdigit() and not match[2] else int(number)
    raise ValueError(f'"{value}" is no count; write 500, 20K, 3M or 1B')


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


Seconds = Annotated[int, BeforeValidator(seconds_of)]
MiB = Annotated[int, BeforeValidator(mebibytes_of)]
Count = Annotated[int, BeforeValidator(count_of)]
