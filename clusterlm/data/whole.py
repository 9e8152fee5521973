"""Whether prepared data may be used: READY, its manifest, and every file and shard in its size.

Light (no numpy): the login node asks before it submits, the supervisor before it starts ranks, and
each rank when it opens the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clusterlm.data.hashes import hash_file
from clusterlm.errors import CacheNotReady
from clusterlm.node.files import read_json
from clusterlm.paths import CachePaths
from clusterlm.weights.resized import why_not_resized

FORMAT = 2

Manifest = dict[str, Any]


def why_not_ready(cache: CachePaths) -> str | None:
    """What is wrong with the data, or the resized model that goes with it; None when both are."""
    fault = why_not_whole(cache.root, cache.root.name)
    return fault or why_not_resized(cache.model, cache.root.parent)


def why_not_whole(root: Path, fingerprint: str | None = None) -> str | None:
    """What is wrong with the data in `root`; None when it may be used."""
    try:
        read_manifest(root, fingerprint)
    except CacheNotReady as error:
        return str(error)
    return None


def read_manifest(root: Path, fingerprint: str | None = None) -> Manifest:
    """The manifest of data that is whole.

    Args:
        root: the folder, `<cache>/<fingerprint>`.
        fingerprint: what the spec asks for; None takes whatever is there.

    Raises:
        CacheNotReady: it is absent, unfinished, damaged, or of another content.
    """
    paths = CachePaths(root)
    ready = read_json(paths.ready)
    if ready is None:
        state = "is not there" if not root.is_dir() else "has no READY: it was never finished"
        raise CacheNotReady(f"prepared data: {root} {state}; run the preprocess phase first")
    manifest = read_json(paths.manifest)
    if manifest is None or ready.get("manifest") != hash_file(paths.manifest):
        raise CacheNotReady(
            _damaged(root, "manifest.json is not the one that READY was written for")
        )
    if manifest.get("format") != FORMAT:
        found = manifest.get("format")
        raise CacheNotReady(_damaged(root, f"its format is {found}, this version reads {FORMAT}"))
    if fingerprint is not None and manifest["fingerprint"] != fingerprint:
        raise CacheNotReady(
            f"prepared data: {root} holds {manifest['fingerprint']}, and {fingerprint} is asked"
            " for; run the preprocess phase for this job"
        )
    for path, size in _files(root, manifest):
        found_size = path.stat().st_size if path.is_file() else None
        if found_size != size:
            found = "is missing" if found_size is None else f"has {found_size} bytes"
            raise CacheNotReady(_damaged(root, f"{path.name} {found}, {size} were written"))
    return manifest


def shards_folder(root: Path) -> Path:
    """Where the shards of prepared data lie: beside it, since others use them too."""
    return root.parent / "shards"


def _files(root: Path, manifest: Manifest) -> Iterator[tuple[Path, int]]:
    for name, file in manifest["files"].items():
        yield root / name, file["bytes"]
    for shard in manifest["shards"]:
        for name, size in shard["files"].items():
            yield shards_folder(root) / shard["key"] / name, size


def _damaged(root: Path, what: str) -> str:
    return f"prepared data: {root} is damaged: {what}; run the preprocess phase again"
