"""The JSON that a command on another machine has answered with, which may hold anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

DEEPEST = 32
"""Ours has a handful of levels. One of hundreds passes the parser and breaks what copies it."""


def last_json(lines: Sequence[str]) -> Any:
    """The answer of a command with --json: the last line that is an object or a list."""
    for line in reversed(lines):
        if line[:1] in ("{", "["):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if _is_shallow(value):
                return value
    return None


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return True
    return False
