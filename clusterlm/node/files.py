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


def create_json(path: Path, value: Any) -> bool:
    """Write `value` unless `path` is there already; says whether it was written.

    Several nodes may try at once. A hard link is made or fails as a whole, on NFS too.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    write_json(aside, value)
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    except OSError:
        # a file system without hard links (some FUSE mounts): the race is small, the need is not
        if path.exists():
            return False
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return True


def has_appeared(path: Path) -> bool:
    """Whether `path` is there, also when another node has made it just now.

    NFS remembers that a name was absent for as long as it trusts what it knows of the folder (up
    to 60 s). Opening the folder makes the client ask the server, and costs two system calls.
    """
    try:
        os.close(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY))
    except OSError:
        return False
    return path.exists()


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`, or None when it is absent or no object (a reader never fails on it)."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def age_of(path: Path, now: float) -> float | None:
    """Seconds since the file changed; a file server's clock may be ahead of ours: never below 0."""
    try:
        return max(0.0, now - os.stat(path).st_mtime)
    except OSError:
        return None


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
