"""Writes the folder of prepared data: plan of blocks, tokenizer, manifest, READY last."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from clusterlm.data.blocks import plan_file
from clusterlm.data.hashes import hash_file
from clusterlm.data.pack import PLAN_COLUMNS, Plan
from clusterlm.data.store.aside import WRITER, Aside, remove_dead
from clusterlm.data.tokenizer_stage import copy_tokenizer
from clusterlm.data.whole import Manifest, why_not_whole
from clusterlm.node.files import write_json
from clusterlm.paths import CachePaths


class PreparedFolder:
    """Prepared data in the making; a context manager that leaves nothing unless published."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._is_published = False

    def __enter__(self) -> PreparedFolder:
        self._root.parent.mkdir(parents=True, exist_ok=True)
        remove_dead(self._root.parent)
        self._aside = Aside(self._root)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._is_published:
            self._aside.discard()

    @property
    def cache(self) -> Path:
        """The folder of all prepared data."""
        return self._root.parent

    @property
    def folder(self) -> Path:
        return self._aside.folder

    def write_tokenizer(self, origin: Path) -> None:
        """Lay the tokenizer beside the blocks."""
        copy_tokenizer(origin, CachePaths(self.folder).tokenizer)

    def write_plan(self, split: str, plan: Plan) -> None:
        """Write the blocks of a split."""
        for column in PLAN_COLUMNS:
            with (self.folder / plan_file(split, column)).open("wb") as handle:
                np.save(handle, getattr(plan, column))
                _flush(handle)

    def publish(self, manifest: Manifest) -> None:
        """Seal the folder and put it in its place; another writer may have been first."""
        files = {
            str(path.relative_to(self.folder)): {
                "bytes": path.stat().st_size,
                "xxh3": hash_file(path),
            }
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != WRITER
        }
        paths = CachePaths(self.folder)
        write_json(paths.manifest, manifest | {"files": files}, mode=0o644)
        write_json(paths.ready, {"manifest": hash_file(paths.manifest)}, mode=0o644)
        self._aside.publish(lambda root: why_not_whole(root) is None)
        self._is_published = True


def _flush(handle: IO[bytes]) -> None:
    handle.flush()
    os.fsync(handle.fileno())
