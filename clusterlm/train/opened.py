"""The prepared data, opened: the one the run was made for, and the same on every rank.

Ranks that saw other data, or another length of it, would wait for each other for ever; so they
compare a hash of the manifest once, which costs some milliseconds.
"""

from __future__ import annotations

import hashlib

from clusterlm.data.cache import Cache, open_cache
from clusterlm.errors import TrainError
from clusterlm.node.files import read_json
from clusterlm.paths import CachePaths
from clusterlm.train.group import Group
from clusterlm.train.rank import Rank


def open_same_cache(rank: Rank, group: Group) -> Cache:
    """Open the cache of the run.

    Raises:
        CacheNotReady: unfinished, or not what lock.json says.
        TrainError: the nodes see different data under the same path.
    """
    cache = open_cache(rank.cache, locked_fingerprint(rank))
    content = CachePaths(rank.cache).manifest.read_bytes()
    seen = group.gather(hashlib.sha256(content).hexdigest())
    if len(set(seen)) > 1:
        other = next(index for index, text in enumerate(seen) if text != seen[0])
        raise TrainError(
            f"rank 0 and rank {other} see different data in {rank.cache}; "
            "the cache folder must be on a filesystem that all nodes share"
        )
    return cache


def locked_fingerprint(rank: Rank) -> str | None:
    """Fingerprint in lock.json: which data the run was made for. None takes what is there."""
    fingerprint = (read_json(rank.run.lock) or {}).get("fingerprint")
    return str(fingerprint) if fingerprint else None


def block_size(cache: Cache) -> int:
    """Tokens in each block."""
    return int(cache.manifest["block_size"])
