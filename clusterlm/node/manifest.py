"""MANIFEST.json of a checkpoint: the size and SHA-256 of every file, and whether they still hold.

Why not trust the file formats: torch.load takes a flipped bit in a tensor for a number, safetensors
has no checksum, and a training that dies in the middle of a save leaves a folder that looks whole.
Why SHA-256: the standard library has it, OpenSSL makes 1.5-2 GB/s of it a core where the CPU knows
SHA, and hashing releases the GIL, so threads hash several files at once.

Files are flushed to the disk while they are measured: otherwise older checkpoints could be pruned
on the word of a seal whose data a power cut takes away.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST = "MANIFEST.json"
BLOCK_BYTES = 4 * 1024 * 1024
NUM_THREADS = 8


class SealError(Exception):
    """The folder cannot be sealed: empty, unreadable, or still being written."""


def measure_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Flush and hash every file of `folder`: {relative name: {bytes, sha256}}, by name.

    Links are followed to files, not to folders.

    Raises:
        SealError: nothing to seal, a file cannot be read, or it changed meanwhile.
    """
    names = _names_in(folder)
    if not names:
        raise SealError(f"{folder}: no files to seal")
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        try:
            entries = list(threads.map(lambda name: _measure_at_rest(folder / name), names))
        except OSError as error:
            raise SealError(f"{folder}: {error}") from error
    for parent in {folder, *((folder / name).parent for name in names)}:
        flush_folder(parent)
    return dict(zip(names, entries, strict=True))


def find_wrong_size(folder: Path, files: dict[str, Any]) -> str | None:
    """The first file that is absent, of another size, or not described; None when all are right."""
    for name, entry in files.items():
        wrong = _check_size(folder, name, entry)
        if wrong:
            return f"{name}: {wrong}"
    return None


def find_wrong_content(folder: Path, files: dict[str, Any]) -> str | None:
    """The first file whose content has another hash; reads every byte."""
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        found = threads.map(lambda name: _check_hash(folder / name, files[name]["sha256"]), files)
        return next((f"{name}: {bad}" for name, bad in zip(files, found, strict=True) if bad), None)


def flush_folder(folder: Path) -> None:
    """Make the names in `folder` last; a file system that cannot is left alone."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _names_in(folder: Path) -> list[str]:
    """Relative names, sorted, without the MANIFEST and what `write_atomically` left beside it."""
    paths = (path for path in folder.rglob("*") if not path.is_dir())
    names = (path.relative_to(folder).as_posix() for path in paths)
    return sorted(n for n in names if n != MANIFEST and not n.startswith(f".{MANIFEST}."))


def _measure_at_rest(path: Path) -> dict[str, Any]:
    with path.open("rb", buffering=0) as handle:
        before = os.fstat(handle.fileno())
        with contextlib.suppress(OSError):
            # some file systems do not flush through a descriptor that only reads
            os.fsync(handle.fileno())
        digest = _hash_stream(handle.fileno())
        after = os.fstat(handle.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise SealError(f"{path}: changed while it was being sealed")
    return {"bytes": after.st_size, "sha256": digest}


def _hash_stream(fd: int) -> str:
    digest, block = hashlib.sha256(), bytearray(BLOCK_BYTES)
    view = memoryview(block)
    while count := os.readv(fd, [block]):
        digest.update(view[:count])
    return digest.hexdigest()


def _check_size(folder: Path, name: str, entry: Any) -> str | None:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return "outside of the folder"
    if not isinstance(entry, dict) or not {"bytes", "sha256"} <= entry.keys():
        return f"no size and hash in {MANIFEST}"
    try:
        size = (folder / name).stat().st_size
    except (OSError, ValueError) as error:
        return _reason(error)
    return None if size == entry["bytes"] else f"{size} bytes instead of {entry['bytes']}"


def _check_hash(path: Path, expected: str) -> str | None:
    try:
        with path.open("rb", buffering=0) as handle:
            digest = _hash_stream(handle.fileno())
    except OSError as error:
        return _reason(error)
    return None if digest == expected else "content is not what was sealed"


def _reason(error: Exception) -> str:
    # ValueError: a name with a NUL in it, from a damaged MANIFEST
    return str(error.strerror if isinstance(error, OSError) else error).lower()
