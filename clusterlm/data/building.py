"""Writes a cache aside and publishes it whole, so that nobody ever sees half of one.

A folder beside the final one is filled, READY last, and renamed: a killed writer, a full disk or
Ctrl-C leave no READY. Several may build the same at once: the first one published stays, the others
throw theirs away. What a dead writer left is removed by the next: on its own host a lock tells that
it is dead, on another (where locks may not be seen) an age of a day.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from clusterlm.data.cache import (
    MASK,
    PLAN_COLUMNS,
    TOKENS,
    open_cache,
    plan_file,
)
from clusterlm.data.encode import Mask, TokenArray, TokenType
from clusterlm.data.hashes import hash_file
from clusterlm.data.pack import Plan
from clusterlm.data.whole import Manifest
from clusterlm.errors import CacheNotReady
from clusterlm.node.files import write_json
from clusterlm.paths import CachePaths

STALE_AFTER_S = 24 * 3600.0

_ASIDE = "building"
_WRITER = ".writer"


class TokenStream:
    """The flat stream of tokens on its way to the disk, with one mask bit for each masked token."""

    def __init__(self, folder: Path, dtype: TokenType) -> None:
        self.position = 0
        self.masked_from: int | None = None
        self._dtype = np.dtype(dtype)
        self._tokens = (folder / TOKENS).open("wb")
        self._mask_path = folder / MASK
        self._bits: list[Mask] = []
        self._num_bits = 0

    def append(self, tokens: TokenArray, mask: Mask | None) -> None:
        """Add tokens; once a mask was given, it is given for all that follow."""
        assert (mask is not None) or self.masked_from is None or not len(tokens)
        if mask is not None and self.masked_from is None:
            self.masked_from = self.position
        self._tokens.write(tokens.astype(self._dtype, copy=False).tobytes())
        self.position += len(tokens)
        if mask is not None:
            self._bits.append(mask)
            self._num_bits += len(mask)
            if self._num_bits >= 1 << 23:
                self._write_bits(self._num_bits // 8 * 8)

    def rewind(self, position: int) -> None:
        """Take back the tokens from `position` on; they had no mask."""
        assert self.masked_from is None
        self._tokens.seek(position * self._dtype.itemsize)
        self._tokens.truncate()
        self.position = position

    def close(self) -> None:
        """Flush everything to the disk."""
        if self._num_bits:
            self._write_bits(self._num_bits)
        _flush(self._tokens)
        self._tokens.close()

    def _write_bits(self, count: int) -> None:
        bits = np.concatenate(self._bits)
        # only the very last byte may be part of one
        with self._mask_path.open("ab") as handle:
            handle.write(np.packbits(bits[:count]).tobytes())
            _flush(handle)
        self._bits, self._num_bits = [bits[count:]], len(bits) - count


def _flush(handle: IO[bytes]) -> None:
    handle.flush()
    os.fsync(handle.fileno())


class CacheBuilder:
    """A cache in the making; as a context manager, it leaves nothing behind unless published."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.folder = root.with_name(f".{root.name}.{uuid.uuid4().hex[:12]}.{_ASIDE}")

    def __enter__(self) -> CacheBuilder:
        self._root.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(self._root.parent, now=time.time())
        self.folder.mkdir()
        self._lock = _lock_as_writer(self.folder / _WRITER)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._lock)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def tokenizer(self) -> Path:
        return CachePaths(self.folder).tokenizer

    @contextmanager
    def stream(self, dtype: TokenType) -> Iterator[TokenStream]:
        """Where the kept tokens go."""
        stream = TokenStream(self.folder, dtype)
        try:
            yield stream
        finally:
            stream.close()

    def write_plan(self, split: str, plan: Plan) -> None:
        """Write the blocks of a split."""
        for column in PLAN_COLUMNS:
            with (self.folder / plan_file(split, column)).open("wb") as handle:
                np.save(handle, getattr(plan, column))
                _flush(handle)

    def publish(self, manifest: Manifest) -> Manifest:
        """Seal the folder and put it in its place.

        Returns:
            The manifest of what now lies there: another writer may have been first.
        """
        files = {
            str(path.relative_to(self.folder)): {
                "bytes": path.stat().st_size,
                "xxh3": hash_file(path),
            }
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != _WRITER
        }
        paths = CachePaths(self.folder)
        write_json(paths.manifest, manifest | {"files": files}, mode=0o644)
        write_json(paths.ready, {"manifest": hash_file(paths.manifest)}, mode=0o644)
        with _locked(self._root.parent):
            return self._put_in_place()

    def _put_in_place(self) -> Manifest:
        with suppress(CacheNotReady):
            return open_cache(self._root).manifest
        if self._root.exists():
            # damaged: moved out of the way first, since a folder is not renamed over another
            trash = self.folder.with_name(f"{self.folder.name}.trash.{_ASIDE}")
            os.rename(self._root, trash)
            shutil.rmtree(trash, ignore_errors=True)
        (self.folder / _WRITER).unlink()
        os.rename(self.folder, self._root)
        _flush_folder(self._root.parent)
        return open_cache(self._root).manifest


def remove_stale(cache: Path, *, now: float) -> None:
    """Remove what dead writers left in `cache`."""
    for folder in cache.glob(f".*.{_ASIDE}"):
        if _is_dead(folder, now):
            shutil.rmtree(folder, ignore_errors=True)


def _is_dead(folder: Path, now: float) -> bool:
    with suppress(OSError):
        writer = folder / _WRITER
        if writer.is_file() and writer.read_text(encoding="utf-8") == socket.gethostname():
            return _is_unlocked(writer)
        newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
        return now - newest > STALE_AFTER_S
    return False


def _is_unlocked(path: Path) -> bool:
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(handle)


def _lock_as_writer(path: Path) -> int:
    """A lock that ends with this process, however it ends."""
    aside = path.with_suffix(".new")
    handle = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    # where the filesystem has no locks, the age decides
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(handle, socket.gethostname().encode())
    # it shows up under its name only once it is locked
    os.rename(aside, path)
    return handle


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One publisher at a time; where there are no locks, two in one instant is a risk taken."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _flush_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        # some network filesystems refuse it for a folder
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
