"""Tables of made-up documents, and shards that hold their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clusterlm.data.blocks import BlockFiles, Blocks, plan_file
from clusterlm.data.order import mix
from clusterlm.data.pack import PLAN_COLUMNS, Plan
from clusterlm.data.store.shard_files import Shard, ShardFiles
from clusterlm.data.table import Table
from clusterlm.data.tokens.token_bytes import NewlineTokens
from clusterlm.spec.data import Data

VOCAB = 100
# ids below 5 end in a newline, those below 2 are nothing else
NEWLINE = NewlineTokens(np.arange(VOCAB) < 5, np.arange(VOCAB) < 2)


def data_of(**values: Any) -> Data:
    """A spec; only what the plan looks at matters."""
    sources = values.pop("sources", [{"kind": "text", "path": "x"}])
    return Data.model_validate(
        {"tokenizer": {"name": "x"}, "sources": sources, "block_size": 8, **values}
    )


def table_of(
    lengths: Sequence[int],
    *,
    keys: Sequence[int] | None = None,
    source: Sequence[int] | None = None,
    is_chat: Sequence[bool] | None = None,
    trained: Sequence[int] | None = None,
    is_held_back: Sequence[bool] | None = None,
) -> Table:
    """Documents one behind the other."""
    sizes, count = np.array(lengths, dtype=np.int64), len(lengths)
    return Table(
        starts=np.cumsum(sizes) - sizes,
        lengths=sizes,
        trained=np.array(trained or [0] * count, dtype=np.int64),
        keys=mix(np.arange(count, dtype=np.uint64))
        if keys is None
        else np.array(keys, dtype=np.uint64),
        source=np.array(source or [0] * count, dtype=np.int32),
        is_chat=np.array(is_chat or [False] * count, dtype=np.bool_),
        is_held_back=np.array(is_held_back or [False] * count, dtype=np.bool_),
    )


class Tokens:
    """Tokens in memory, with a bit for each."""

    def __init__(self, tokens: np.ndarray[Any, Any], bits: np.ndarray[Any, Any] | None = None):
        self.tokens = tokens
        self.bits = np.ones(len(tokens), dtype=np.bool_) if bits is None else bits

    def __getitem__(self, addresses: slice) -> np.ndarray[Any, Any]:
        assert 0 <= addresses.start <= addresses.stop <= len(self.tokens)
        return self.tokens[addresses]

    def count_trained(
        self, starts: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]
    ) -> np.ndarray[Any, Any]:
        pairs = zip(starts.tolist(), lengths.tolist(), strict=True)
        return np.array([self.bits[s : s + n].sum() for s, n in pairs], dtype=np.int64)


def blocks_of(plan: Plan) -> list[list[int]]:
    """The addresses that each block holds."""
    return [
        [
            int(plan.starts[s]) + i
            for s in range(int(plan.offsets[b]), int(plan.offsets[b + 1]))
            for i in range(int(plan.lengths[s]))
        ]
        for b in range(plan.num_blocks)
    ]


def write_shards(
    folder: Path,
    tokens: Sequence[int],
    cuts: Sequence[int],
    *,
    bits: Sequence[bool] | None = None,
    codes: Sequence[int] | None = None,
    weights: tuple[float, ...] = (),
    with_bits_from: int = 0,
    dtype: str = "<u2",
) -> ShardFiles:
    """Shards of the tokens between the cuts; from shard `with_bits_from` on they have bits."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    edges = [0, *cuts, len(tokens)]
    for k, (begin, end) in enumerate(zip(edges, edges[1:], strict=False)):
        path = folder / f"tokens{k}.bin"
        np.array(tokens[begin:end], dtype=dtype).tofile(path)
        trained = of_code = None
        if bits is not None and k >= with_bits_from:
            trained = folder / f"trained{k}.bin"
            np.packbits(np.array(bits[begin:end], dtype=np.bool_)).tofile(trained)
        if codes is not None and k >= with_bits_from:
            of_code = folder / f"codes{k}.bin"
            np.array(codes[begin:end], dtype=np.uint8).tofile(of_code)
        shards.append(
            Shard(path, end - begin, trained, of_code, weights if of_code is not None else ())
        )
    return ShardFiles(shards, dtype)


def open_blocks(
    folder: Path, plan: Plan, shards: ShardFiles, block_size: int, pad_id: int = 99
) -> Blocks:
    """Write the plan and read its blocks."""
    folder.mkdir(parents=True, exist_ok=True)
    for column in PLAN_COLUMNS:
        np.save(folder / plan_file("train", column), getattr(plan, column))
    dtype = shards.dtype.str
    return Blocks(BlockFiles(folder, "train", shards.shards, dtype, block_size, pad_id))
