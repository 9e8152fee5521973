"""sha256 of large files, remembered: a data set of 100 GB is read once and not at every submit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from clusterlm.cluster.remote.tree import sha256_of
from clusterlm.errors import ClusterLMError
from clusterlm.node.files import read_json, write_json
from clusterlm.paths import PRIVATE_DIR

WORTH_IT = 1_000_000
MOST_KEPT = 20_000


class Hashes:
    """What is known of files by path, size, inode and time of change."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, Any] = read_json(file) or {}
        self._is_new = False

    def of(self, path: Path, status: os.stat_result) -> str:
        """The file's sha256.

        Raises:
            ClusterLMError: it changed while it was read.
        """
        if status.st_size < WORTH_IT:
            # a log that is being written goes as long as it was
            return sha256_of(path, status.st_size)
        key, mark = str(path), [status.st_size, status.st_mtime_ns, status.st_ino]
        known = self._known.get(key)
        if isinstance(known, list) and known[:3] == mark:
            return str(known[3])
        digest = sha256_of(path, status.st_size)
        after = os.stat(path)
        if [after.st_size, after.st_mtime_ns, after.st_ino] != mark:
            raise ClusterLMError(f"{path} changes while it is read; try again when it is written")
        self._known[key] = [*mark, digest]
        self._is_new = True
        return digest

    def save(self) -> None:
        """Keep what was found for the next time."""
        if not self._is_new:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIR)
        write_json(self._file, dict(list(self._known.items())[-MOST_KEPT:]))
        self._is_new = False
