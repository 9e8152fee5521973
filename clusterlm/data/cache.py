"""Prepared data as the trainer sees it: a folder that is opened only when it is whole.

    <cache>/<fingerprint>/
      <split>.{starts,lengths,offsets,isolated}.npy      the plan of blocks, see `pack.py`
      tokenizer/               for AutoTokenizer.from_pretrained
      quarantine.jsonl         records that could not be used, where they are asked to be kept
      manifest.json            what it is, what it was made of, counts, its shards, size and hash
      READY                    the hash of the manifest
    <cache>/shards/<key>/      the tokens, see `shards.py`; plans of the same data share them

Files are mapped into memory, so all ranks of a node share one copy, and opening takes milliseconds.
Opening compares the fingerprint and the sizes; `verify.py` compares every hash.
"""

from __future__ import annotations

from pathlib import Path

from clusterlm.data.blocks import IGNORE_INDEX, BlockFiles, Blocks, Sample, plan_file
from clusterlm.data.store.shard_files import Shard, ShardFiles
from clusterlm.data.store.shards import CODES, TOKENS, TRAINED
from clusterlm.data.whole import Manifest, read_manifest, shards_folder
from clusterlm.errors import CacheNotReady
from clusterlm.paths import CachePaths

__all__ = ["IGNORE_INDEX", "Blocks", "Cache", "Sample", "open_cache", "plan_file"]


def open_cache(root: Path, fingerprint: str | None = None) -> Cache:
    """Open prepared data.

    Args:
        root: the folder, `<cache>/<fingerprint>`.
        fingerprint: what the spec asks for; None takes whatever is there.

    Raises:
        CacheNotReady: it is absent, unfinished, damaged, or of another content.
    """
    return Cache(root, read_manifest(root, fingerprint))


class Cache:
    """Prepared data that was checked by `open_cache`."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest

    @property
    def tokenizer_dir(self) -> Path:
        return CachePaths(self.root).tokenizer

    @property
    def splits(self) -> list[str]:
        """`train`, and `validation` if something was held back."""
        return list(self.manifest["splits"])

    @property
    def shards(self) -> tuple[Shard, ...]:
        """Where the tokens lie, in the order of addresses."""
        folder = shards_folder(self.root)
        return tuple(
            shard_of(folder / about["key"], about["num_tokens"], tuple(about["weights"]))
            for about in self.manifest["shards"]
        )

    def tokens(self) -> ShardFiles:
        """All tokens, by address."""
        return ShardFiles(self.shards, self.manifest["dtype"])

    def split(self, name: str) -> Blocks:
        """The blocks of a split.

        Raises:
            CacheNotReady: there is no such split.
        """
        if name not in self.manifest["splits"]:
            there = ", ".join(self.splits)
            raise CacheNotReady(f"prepared data: {self.root} has no split {name!r}; it has {there}")
        about = self.manifest
        sizes = (about["dtype"], int(about["block_size"]), int(about["pad_id"]))
        return Blocks(BlockFiles(self.root, name, self.shards, *sizes))


def shard_of(root: Path, num_tokens: int, weights: tuple[float, ...]) -> Shard:
    """The files of a shard as a reader needs them."""
    trained, codes = root / TRAINED, root / CODES
    return Shard(
        tokens=root / TOKENS,
        num_tokens=num_tokens,
        trained=trained if trained.exists() else None,
        codes=codes if weights and codes.exists() else None,
        weights=weights,
    )
