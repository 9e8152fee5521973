"""How every room writes small files for the others: whole, then renamed; read without trust.

A reader on another node may look at any moment, so it sees the old content or the new, never half.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any


def write_atomically(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write `text` beside `path`, flush it to the disk, then rename it over `path`."""
    # the name must not clash between nodes that share the folder: pids repeat across hosts
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, *, mode: int = 0o600) -> None:
    """Write `value` as one line of JSON, atomically."""
    write_atomically(path, json.dumps(value) + "\n", mode=mode)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`, or None when it is absent or no object (a reader never fails on it)."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def append_json(path: Path, value: Any) -> None:
    """Append `value` as one line.

    One O_APPEND write of less than a page: lines of several writers on one host do not mix.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, (json.dumps(value) + "\n").encode())
    finally:
        os.close(fd)


def read_jsonl(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The whole lines after byte `offset` and the offset behind them; broken lines are left out."""
    try:
        with path.open("rb") as handle:
            handle.seek(offset)
            data = handle.read()
    except OSError:
        return [], offset
    end = data.rfind(b"\n") + 1
    rows = []
    for line in data[:end].splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            rows.append(value)
    return rows, offset + end
