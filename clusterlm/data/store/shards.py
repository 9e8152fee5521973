"""A shard: the tokens of up to 1 GiB of source, in few large files, named by its content.

    <cache>/shards/<key>/
      tokens.bin       every document of its chunks, 2 bytes a token (4 beyond 65536 entries)
      documents.bin    one row a document, see DOCUMENT
      trained.bin      conversations: 1 bit a token; bit i is token i
      codes.bin        conversations with role weights: 1 byte a token
      shard.json       written last: its chunks, with place, counts, left-out records and hash

The key is made of the content of the source, the tokenizer, the template, the options that change
tokens. It does not hold the block size, the split, the mix, dedup, the number of workers or the
engine: those are chosen later, over the same shards. A chunk has such a key too, so what another
shard (or a writer that was killed) holds already is copied and not encoded again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from clusterlm.data.store.documents import BAD, DOCUMENT, Documents, Problem, TokenArray
from clusterlm.node.files import read_json

FORMAT = 2

TOKENS, DOCUMENTS, TRAINED, CODES = "tokens.bin", "documents.bin", "trained.bin", "codes.bin"
SHARD, JOURNAL = "shard.json", "journal.jsonl"


@dataclass(frozen=True)
class ChunkRow:
    """Where a chunk lies in its shard, and what was counted.

    Attributes:
        number: its place among the chunks of the shard.
        file: place of its first file among the files of the shard's unit.
        token_start, num_tokens: in tokens.bin; padding behind it is in neither.
        document_start, num_documents: in documents.bin.
        hash: xxh3_128 over its bytes in all files.
        counts: records left out, by reason, and what else is told.
        dropped: the first MAX_LISTED records that were left out, as `Problem`.
    """

    number: int
    key: str
    file: int
    token_start: int
    num_tokens: int
    document_start: int
    num_documents: int
    num_records: int
    num_bytes: int
    hash: str
    is_masked: bool = False
    is_coded: bool = False
    domains: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    dropped: list[Problem] = field(default_factory=list)

    @classmethod
    def of(cls, value: dict[str, Any]) -> ChunkRow:
        """Read one back."""
        return cls(**value)

    @property
    def problems(self) -> list[Problem]:
        return [Problem(*problem) for problem in self.dropped]


@dataclass(frozen=True)
class ChunkArrays:
    """The bytes of a chunk as they lie in the files."""

    tokens: TokenArray
    documents: Documents
    trained: bytes | None
    codes: bytes | None

    def hash(self) -> str:
        state = xxhash.xxh3_128(self.tokens.data)
        state.update(self.documents.tobytes())
        for part in (self.trained, self.codes):
            state.update(part or b"")
        return str(state.hexdigest())


@dataclass(frozen=True)
class StoredShard:
    """A shard that is whole.

    Attributes:
        files: sizes by name.
        first_file: place of its unit's first file among those of the source.
    """

    root: Path
    first_file: int
    dtype: str
    num_tokens: int
    num_documents: int
    files: dict[str, int]
    chunks: tuple[ChunkRow, ...]

    @property
    def key(self) -> str:
        return self.root.name

    def documents(self) -> Documents:
        """Every row, in order."""
        return np.fromfile(self.root / DOCUMENTS, dtype=DOCUMENT)

    def tokens(self) -> TokenArray:
        """All tokens, mapped."""
        return map_tokens(self.root / TOKENS, self.dtype)

    def counts(self) -> Counter[str]:
        """What was counted over its chunks."""
        total = Counter[str]()
        for row in self.chunks:
            total.update(row.counts)
        return total

    def bad(self) -> Iterator[Problem]:
        """Malformed records."""
        return (problem for problem in self.problems() if problem.reason == BAD)

    def problems(self) -> list[Problem]:
        """Records that were left out, in order, by file of the source; of each chunk the first."""
        return [
            problem._replace(file=self.first_file + row.file + problem.file)
            for row in self.chunks
            for problem in row.problems
        ]


def map_tokens(path: Path, dtype: str) -> TokenArray:
    """The tokens in a file, as a plain array (a memmap makes each small slice slower)."""
    if not path.stat().st_size:
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)


def open_shard(root: Path, first_file: int = 0) -> StoredShard | None:
    """The shard in `root`; None unless it is there, finished, and every file has its size."""
    about = unsealed(read_json(root / SHARD))
    # what is sealed was written here
    if about is None or about.get("format") != FORMAT:
        return None
    for name, size in about["files"].items():
        path = root / name
        if not path.is_file() or path.stat().st_size != size:
            return None
    rows = tuple(ChunkRow.of(row) for row in about["chunks"])
    counts = (about["num_tokens"], about["num_documents"], about["files"])
    return StoredShard(root, first_file, about["dtype"], *counts, rows)


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """The value with a hash of itself, so that a flipped bit in it shows."""
    return {**value, "xxh3": _hash_of(value)}


def unsealed(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """What was sealed; None when it is something else, or has changed since."""
    if value is None or value.pop("xxh3", None) != _hash_of(value):
        return None
    return value


def _hash_of(value: dict[str, Any]) -> str:
    return str(xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode()))


def is_whole(root: Path) -> bool:
    """Whether the shard in `root` may be used."""
    return open_shard(root) is not None


def read_chunk(root: Path, row: ChunkRow, dtype: str) -> ChunkArrays | None:
    """The bytes of one chunk; None when they are not what was written."""
    try:
        arrays = ChunkArrays(
            tokens=_part(root / TOKENS, row.token_start, row.num_tokens, np.dtype(dtype)),
            documents=_part(root / DOCUMENTS, row.document_start, row.num_documents, DOCUMENT),
            trained=_bits(root, row) if row.is_masked else None,
            codes=_codes(root, row) if row.is_coded else None,
        )
    except OSError:
        return None
    return arrays if arrays.hash() == row.hash else None


def damage_of(shard: StoredShard) -> str | None:
    """What is wrong with a shard, comparing every hash; None when nothing is."""
    for row in shard.chunks:
        if read_chunk(shard.root, row, shard.dtype) is None:
            return f"{shard.root / TOKENS}: chunk {row.number} is not what was written"
    return None


def _part(path: Path, start: int, count: int, dtype: np.dtype[Any]) -> Any:
    return np.fromfile(path, dtype=dtype, count=count, offset=start * dtype.itemsize)


def _bits(root: Path, row: ChunkRow) -> bytes:
    return _bytes(root / TRAINED, row.token_start // 8, -(-row.num_tokens // 8))


def _codes(root: Path, row: ChunkRow) -> bytes:
    return _bytes(root / CODES, row.token_start, row.num_tokens)


def _bytes(path: Path, start: int, count: int) -> bytes:
    with path.open("rb") as handle:
        handle.seek(start)
        return handle.read(count)
