"""Slurm's own ways to write values. `(null)`, `N/A`, empty and absent are the same: None. Pure."""

from __future__ import annotations

import re

from clusterlm.spec.units import seconds_of

_NOTHING = {"", "(null)", "n/a", "none", "unknown", "n/s"}
_NO_LIMIT = {"unlimited", "infinite"}
# a value ends where the next KEY= begins: `OS=Linux 6.1 #1 SMP RealMemory=8000`
_PAIR = re.compile(r"(\w[\w/:.-]*(?:\[\d+\])?)=(.*?)(?=\s+\w[\w/:.-]*=|\s*$)")
_SETTING = re.compile(r"(\w+(?:\[\d+\])?)\s+=\s(.*)")


def settings(text: str) -> dict[str, str]:
    """`KillWait  = 30 sec` and so on, of `scontrol show config`."""
    matches = [_SETTING.match(line) for line in text.splitlines()]
    return {match[1]: match[2].strip() for match in matches if match}


def records(text: str, first: str) -> list[dict[str, str]]:
    """`KEY=VALUE KEY=VALUE`, one record a line, of `scontrol -o show`.

    Args:
        text: the output.
        first: key that begins a record; other lines are left out.
    """
    found = [dict(_PAIR.findall(line.strip())) for line in text.splitlines()]
    return [record for record in found if first in record]


def rows(text: str, num_cells: int, separator: str = "|") -> list[list[str]]:
    """Cells of each line; a line with fewer is filled up, with more it is no row."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(separator)]
        if line.strip() and len(cells) <= num_cells:
            found.append(cells + [""] * (num_cells - len(cells)))
    return found


def word(text: str | None) -> str | None:
    """A word that says something."""
    stripped = (text or "").strip()
    return None if stripped.lower() in _NOTHING else stripped


def words(text: str | None) -> tuple[str, ...]:
    """Of a list with commas; those that say nothing are left out."""
    return tuple(part for part in (text or "").split(",") if word(part))


def number(text: str | None) -> int | None:
    """`8`, `8+` (the smallest of several), `30 sec`; None without a limit."""
    match = re.match(r"\s*(\d{1,12})", text or "")
    return int(match[1]) if match else None


def duration_s(text: str | None, *, bare: int = 1) -> int | None:
    """Seconds; None for no limit.

    Args:
        text: `30 sec`, `5 min`, `1-00:00:00`, `UNLIMITED`, `120`.
        bare: seconds of one, where there is no unit.
    """
    found = word(text)
    if found is None or found.lower() in _NO_LIMIT:
        return None
    if match := re.fullmatch(r"(\d{1,12})(?:\s*(sec|min)\w*)?", found):
        return int(match[1]) * {"sec": 1, "min": 60, None: bare}[match[2]]
    if not found.strip("0:-"):
        return 0
    try:
        return seconds_of(found)
    except ValueError:
        return None


def is_on(text: str | None) -> bool | None:
    """`1`, `YES`; None when it is not known."""
    found = word(text)
    return None if found is None else found.lower() in ("1", "yes", "true", "on")


def written(seconds: int) -> str:
    """A time limit as in a job.yaml: 3:50:00, or 2-00:00:00."""
    days, rest = divmod(seconds, 86400)
    text = f"{rest // 3600}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days}-{rest // 3600:02}{text[text.index(':') :]}" if days else text
