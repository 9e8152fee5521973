"""One thing that doctor has to say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How much it matters."""

    BAD = "!!"
    """Trainings will fail until something is done."""
    WARN = "!"
    """They will run; something is lost, slow or uncertain."""
    NOTE = "-"
    """Good to know; nothing to do."""


@dataclass(frozen=True)
class Finding:
    """What was found, what it means, and what to do where there is something to do.

    Attributes:
        severity: how much it matters.
        words: what was found.
        advice: what to do.
        where: the key of the job that it is about, when it is about one: `resources.account`.
    """

    severity: Severity
    words: str
    advice: str = ""
    where: str = ""


@dataclass(frozen=True)
class Save:
    """How long the newest save of a run took."""

    run: str
    seconds: float


def bad(words: str, advice: str = "", where: str = "") -> Finding:
    """Trainings will fail."""
    return Finding(Severity.BAD, words, advice, where)


def warn(words: str, advice: str = "", where: str = "") -> Finding:
    """Something is lost, slow or uncertain."""
    return Finding(Severity.WARN, words, advice, where)


def note(words: str, advice: str = "", where: str = "") -> Finding:
    """Good to know."""
    return Finding(Severity.NOTE, words, advice, where)
