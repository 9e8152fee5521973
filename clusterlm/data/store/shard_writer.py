"""Writes a shard: chunks at places that are known in order, their bytes in any order.

The parent knows the place of a chunk as soon as all chunks before it are encoded; the worker that
holds its arrays then writes them there itself. So the files are the same for any number of workers,
and no process sees all the tokens. Each chunk that lies on the disk is a line in the journal: what
a killed writer has done is used by the next.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clusterlm.data.store.aside import WRITER, Aside
from clusterlm.data.store.documents import DOCUMENT
from clusterlm.data.store.shards import (
    CODES,
    DOCUMENTS,
    FORMAT,
    JOURNAL,
    SHARD,
    TOKENS,
    TRAINED,
    ChunkArrays,
    ChunkRow,
    is_whole,
    sealed,
)
from clusterlm.node.files import append_json, write_json

_ALIGNED = 8
"""Tokens: chunks of conversations begin at a multiple, so that their bits begin at a byte."""


@dataclass(frozen=True)
class Place:
    """Where a chunk goes."""

    folder: Path
    token_start: int
    document_start: int
    dtype: str


class ShardWriter:
    """A shard in the making."""

    def __init__(self, root: Path, dtype: str, *, is_masked: bool, is_coded: bool) -> None:
        self._aside = Aside(root)
        self._dtype = dtype
        self._rows: list[ChunkRow] = []
        self._num_tokens = self._num_documents = 0
        self._align = _ALIGNED if is_masked else 1
        self._files = [TOKENS, DOCUMENTS]
        self._files += [TRAINED] if is_masked else []
        self._files += [CODES] if is_coded else []
        for name in self._files:
            (self._aside.folder / name).touch()
        write_json(self._aside.folder / "dtype.json", {"dtype": dtype})

    def place(self, num_tokens: int, num_documents: int) -> Place:
        """The place of the next chunk; chunks are asked for in order."""
        place = Place(self._aside.folder, self._num_tokens, self._num_documents, self._dtype)
        self._num_tokens += -(-num_tokens // self._align) * self._align
        self._num_documents += num_documents
        return place

    def note(self, row: ChunkRow) -> None:
        """A chunk lies on the disk."""
        self._rows.append(row)
        append_json(self._aside.folder / JOURNAL, asdict(row))

    @property
    def files(self) -> tuple[Path, ...]:
        """To be flushed before `finish`."""
        return tuple(self._aside.folder / name for name in self._files)

    def finish(self) -> None:
        """Seal the shard and put it in its place."""
        folder = self._aside.folder
        self._rows.sort(key=lambda row: row.number)
        self._pad()
        sizes = {name: (folder / name).stat().st_size for name in self._files}
        about = {
            "format": FORMAT,
            "key": self._aside.root.name,
            "dtype": self._dtype,
            "num_tokens": self._num_tokens,
            "num_documents": self._num_documents,
            "files": sizes,
            "chunks": [asdict(row) for row in self._rows],
        }
        write_json(folder / SHARD, sealed(about), mode=0o644)
        for path in folder.iterdir():
            if path.name not in (*self._files, SHARD, WRITER):
                path.unlink()
        self._aside.publish(is_whole)

    def discard(self) -> None:
        """Throw everything away."""
        self._aside.discard()

    def leave(self) -> None:
        """Stop here: what was written stays, for the next writer; nothing is not kept."""
        if self._rows:
            self._aside.leave()
        else:
            self._aside.discard()

    def _pad(self) -> None:
        # the padding behind the last chunk was never written
        widths = {TOKENS: np.dtype(self._dtype).itemsize, CODES: 1}
        for name, width in widths.items():
            if name in self._files:
                os.truncate(self._aside.folder / name, self._num_tokens * width)
        if TRAINED in self._files:
            os.truncate(self._aside.folder / TRAINED, -(-self._num_tokens // 8))


def write_chunk(place: Place, arrays: ChunkArrays) -> None:
    """Write the bytes of a chunk at its place; by the worker that holds them."""
    width = np.dtype(place.dtype).itemsize
    _write_at(place.folder / TOKENS, place.token_start * width, arrays.tokens.data)
    documents = arrays.documents.tobytes()
    _write_at(place.folder / DOCUMENTS, place.document_start * DOCUMENT.itemsize, documents)
    if arrays.trained is not None:
        _write_at(place.folder / TRAINED, place.token_start // 8, arrays.trained)
    if arrays.codes is not None:
        _write_at(place.folder / CODES, place.token_start, arrays.codes)


def _write_at(path: Path, offset: int, data: Any) -> None:
    view = memoryview(data).cast("B") if len(data) else b""
    handle = os.open(path, os.O_WRONLY)
    try:
        while len(view):
            # a full disk may take a part first; a single call writes at most 2 GiB
            done = os.pwrite(handle, view, offset)
            view, offset = view[done:], offset + done
    finally:
        os.close(handle)


def flush_files(files: Sequence[Path]) -> None:
    """Bring files to the disk."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
