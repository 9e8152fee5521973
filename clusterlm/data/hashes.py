"""Content hashes of files, remembered so that a second submit does not read 100 GB again.

`<cache_dir>/.hashes.json` holds path -> size, mtime, ctime, hash (one for each stripe of a large
file, with commas between). A file that was modified within the last two seconds is not remembered:
it could change again within the same tick of its clock (git calls such a file racily clean). The
memory is only ever a saving: broken, absent or unwritable, it costs time.
"""

from __future__ import annotations

import json
import stat
import time
from contextlib import suppress
from pathlib import Path

import xxhash

from clusterlm.errors import DataError
from clusterlm.node.files import read_json, write_atomically

RACY_S = 2.0
MAX_REMEMBERED = 100_000
READ_BYTES = 1 << 20

STRIPE_BYTES = 1 << 30
"""A larger file is hashed in stripes, so that one reading gives the hash of each of its units."""


def hash_file(path: Path) -> str:
    """32 hex characters of xxh3_128 over the content of `path`."""
    return hash_range(path, 0, None)


def hash_range(path: Path, start: int, end: int | None) -> str:
    """The same over its bytes [start, end)."""
    state = xxhash.xxh3_128()
    try:
        # a pipe would be waited for, and a device may have no end
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path}: no regular file, so it has no content to be hashed")
        with path.open("rb") as handle:
            handle.seek(start)
            left = READ_BYTES if end is None else end - start
            while block := handle.read(min(READ_BYTES, left)):
                state.update(block)
                left -= len(block) if end is not None else 0
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return str(state.hexdigest())


class HashMemo:
    """Hashes files, and reads again only those whose size or times have changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = self._load()
        self._new: dict[str, list[int | str]] = {}

    def hash_of(self, path: Path) -> str:
        """The content hash of `path`."""
        stripes = self._stripes_of(path)
        if "," not in stripes:
            return stripes
        return str(xxhash.xxh3_128(stripes.encode()).hexdigest())

    def hash_of_range(self, path: Path, start: int, end: int) -> str:
        """The content hash of the bytes [start, end) of `path`; remembered if it is a stripe."""
        size = path.stat().st_size
        if start % STRIPE_BYTES == 0 and end == min(start + STRIPE_BYTES, size):
            return self._stripes_of(path).split(",")[start // STRIPE_BYTES]
        return hash_range(path, start, end)

    def _stripes_of(self, path: Path) -> str:
        status = path.stat()
        # ctime cannot be set back: it betrays an edit behind a restored mtime
        key = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        entry = self._new.get(str(path)) or self._known.get(str(path))
        if entry is not None and entry[:3] == key:
            return str(entry[3])
        content = _hash_stripes(path, status.st_size)
        newest_ns = max(status.st_mtime_ns, status.st_ctime_ns)
        if time.time_ns() - newest_ns > RACY_S * 1e9:
            self._new[str(path)] = [*key, content]
        return content

    def save(self) -> None:
        """Remember what was hashed; silently does nothing where that is not possible."""
        if not self._new:
            return
        # read again: another submit may have written in between
        merged = {**self._load(), **self._new}
        newest = dict(list(merged.items())[-MAX_REMEMBERED:])
        with suppress(OSError, UnicodeError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps({"version": 1, "files": newest}))
        self._known = newest
        self._new = {}

    def _load(self) -> dict[str, list[int | str]]:
        value = read_json(self._path) or {}
        files = value.get("files")
        if value.get("version") != 1 or not isinstance(files, dict):
            return {}
        return {name: entry for name, entry in files.items() if _is_entry(entry)}


def _hash_stripes(path: Path, size: int) -> str:
    if size <= STRIPE_BYTES:
        return hash_file(path)
    starts = range(0, size, STRIPE_BYTES)
    return ",".join(hash_range(path, start, start + STRIPE_BYTES) for start in starts)


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 4
        and all(isinstance(part, int) for part in entry[:3])
        and isinstance(entry[3], str)
    )
