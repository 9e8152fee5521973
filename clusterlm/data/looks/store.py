"""What lies in the cache folder, what is still of use, and how it goes: `cache ls`, `rm`, `gc`.

    <cache>/<fingerprint>/     prepared data: goes when somebody says so (rm)
    <cache>/shards/<key>/      tokens, shared: go when no prepared data refers to them (gc)
    <cache>/tokenizers/<key>/  the same
    <cache>/chosen/*.npz       duplicates that were found; the same
    <cache>/models/<key>/      resized models: go when no run refers to them (gc)
    .<name>.<id>.building      in the making, or what a killed writer has left

Light (no numpy), and written for folders in any state: what is damaged is listed as such, what is
foreign is left alone.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterlm.data.looks.cache_names import (
    CHOSEN,
    SHARDS,
    TOKENIZERS,
    chosen_prefix,
    tokenizer_key,
)
from clusterlm.data.store.aside import dead_folders
from clusterlm.data.whole import Manifest, why_not_whole
from clusterlm.errors import DataError
from clusterlm.node.files import read_json
from clusterlm.paths import CachePaths
from clusterlm.weights.resized import MODELS

YOUNG_S = 3600.0
"""What nothing refers to may be in the making for so long: by a task, or before its plan is."""
SHORT = 16

_KEY = re.compile(r"[0-9a-f]{32}")
# one is <what shards>-<what settings>; older versions had no such front
_CHOSEN = re.compile(r"\.?(?:([0-9a-f]{32})-)?[0-9a-f]{32}\.npz(?:\.\d+\.npz)?")


@dataclass(frozen=True)
class Prepared:
    """Prepared data.

    Attributes:
        written: unix time.
        own_bytes: without its shards.
        problem: why it cannot be used; None when it can.
        manifest: {} when it cannot be read.
        shards: their keys, each once.
    """

    root: Path
    written: float
    own_bytes: int
    problem: str | None
    manifest: Manifest
    shards: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        return self.root.name

    @property
    def short(self) -> str:
        return self.root.name[:SHORT]

    @property
    def sources(self) -> list[str]:
        """Where its sources lay, as far as that is known."""
        rows = self.manifest.get("sources") or []
        return [str(row.get("path") or row.get("place") or "?") for row in rows]


@dataclass(frozen=True)
class Item:
    """Something that is shared, or left behind.

    Attributes:
        kind: shard, tokenizer, chosen, model, leftover.
        written: unix time.
        is_used: prepared data refers to it; to a model, a run.
    """

    kind: str
    path: Path
    num_bytes: int
    written: float
    is_used: bool


@dataclass(frozen=True)
class Store:
    """The cache folder.

    Attributes:
        living: what somebody is writing right now.
    """

    root: Path
    prepared: list[Prepared]
    items: list[Item]
    living: list[Path]

    def of_kind(self, kind: str) -> list[Item]:
        return [item for item in self.items if item.kind == kind]

    def size_of(self, one: Prepared) -> int:
        """With its shards, which others may use too."""
        sizes = {item.path.name: item.num_bytes for item in self.of_kind("shard")}
        return one.own_bytes + sum(sizes.get(key, 0) for key in one.shards)

    @property
    def num_bytes(self) -> int:
        return sum(p.own_bytes for p in self.prepared) + sum(i.num_bytes for i in self.items)


def read_store(root: Path, *, now: float, models: Collection[str] = ()) -> Store:
    """Look at a cache folder; an absent one is an empty one.

    Args:
        root: the folder.
        now: unix time.
        models: keys of the resized models that runs refer to.
    """
    prepared = sorted(map(_prepared, _keyed(root)), key=lambda one: one.written, reverse=True)
    manifests = [one.manifest for one in prepared if one.manifest]
    shards = {key for one in prepared for key in one.shards}
    tokenizers = {key for key in map(_tokenizer_of, manifests) if key}
    chosen = {chosen_prefix(_shards_of(manifest)) for manifest in manifests}
    items = [
        *(_item("shard", path, path.name in shards) for path in _keyed(root / SHARDS)),
        *(_item("tokenizer", path, path.name in tokenizers) for path in _keyed(root / TOKENIZERS)),
        *(_item("model", path, path.name in models) for path in _keyed(root / MODELS)),
        *(_item("chosen", path, front in chosen) for path, front in _chosen(root / CHOSEN)),
    ]
    living = []
    for folder in (root, root / SHARDS, root / TOKENIZERS, root / MODELS):
        dead = dead_folders(folder, now=now)
        items += [_item("leftover", path, is_used=False) for path in dead]
        living += sorted(set(folder.glob(".*.building")) - set(dead))
    return Store(root, prepared, items, living)


def superfluous(
    store: Store, *, now: float, is_busy: bool = False, young_too: bool = False
) -> list[Item]:
    """What nobody needs. Pure.

    Args:
        store: what there is.
        now: unix time.
        is_busy: a run prepares data: it relies on shards and a tokenizer that are in no plan yet.
        young_too: also what is so young that somebody may be at it unseen.
    """
    if store.living or is_busy:
        return [item for item in store.items if item.kind == "leftover" and _is_old(item, now)]
    return [
        item
        for item in store.items
        if not item.is_used and (young_too or _is_old(item, now) or _is_no_use(item, store))
    ]


def choose_prepared(prepared: Sequence[Prepared], prefix: str) -> Prepared:
    """The prepared data whose fingerprint begins so.

    Raises:
        DataError: none does, or several do.
    """
    found = [one for one in prepared if prefix and one.fingerprint.startswith(prefix)]
    if len(found) != 1:
        there = ", ".join(one.short for one in found or prepared) or "none"
        what = "several begin with" if found else "no prepared data begins with"
        raise DataError(f"{what} {prefix!r}; there are: {there}")
    return found[0]


def remove(item: Item) -> None:
    """Take an item away."""
    if item.path.is_dir():
        remove_folder(item.path)
    else:
        with suppress(FileNotFoundError):
            item.path.unlink()


def remove_folder(folder: Path) -> None:
    """Take a folder away, so that nobody ever sees half of it."""
    # named like a leftover: if this is killed, the next writer sweeps it
    aside = folder.with_name(f".{folder.name.lstrip('.')}.{uuid.uuid4().hex[:12]}.trash.building")
    with suppress(FileNotFoundError):
        os.rename(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)


def bytes_below(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    with suppress(OSError):
        if not path.is_dir():
            return path.lstat().st_size
        return sum(_bytes_of(p) for p in path.rglob("*"))
    return 0


def as_json(one: Prepared, store: Store, runs: Sequence[str], unfinished: Sequence[str]) -> Any:
    """A row of `cache ls --json`."""
    manifest = one.manifest
    return {
        "fingerprint": one.fingerprint,
        "written": one.written,
        "problem": one.problem,
        "bytes": store.size_of(one),
        "own_bytes": one.own_bytes,
        "shards": list(one.shards),
        "tokens": (manifest.get("counts") or {}).get("tokens"),
        "blocks": {name: split["blocks"] for name, split in manifest.get("splits", {}).items()},
        "block_size": manifest.get("block_size"),
        "sources": one.sources,
        "runs": list(runs),
        "unfinished": list(unfinished),
    }


def _prepared(root: Path) -> Prepared:
    paths = CachePaths(root)
    manifest: Manifest = read_json(paths.manifest) or {}
    try:
        problem = why_not_whole(root)
        shards = tuple(dict.fromkeys(_shards_of(manifest)))
        _ = [dict(row) for row in manifest.get("sources", [])]
    except (KeyError, TypeError, ValueError, AttributeError, DataError):
        # READY and a manifest fit each other, and are not ours
        problem, manifest, shards = "manifest.json is none of this version", {}, ()
    return Prepared(root, _written(root), bytes_below(root), problem, manifest, shards)


def _shards_of(manifest: Manifest) -> list[str]:
    return [str(shard["key"]) for shard in manifest.get("shards", [])]


def _tokenizer_of(manifest: Manifest) -> str | None:
    with suppress(AttributeError, TypeError):
        return tokenizer_key(manifest["parts"]) if manifest.get("parts") else None
    return None


def _item(kind: str, path: Path, is_used: bool) -> Item:
    return Item(kind, path, bytes_below(path), _written(path), is_used)


def _is_old(item: Item, now: float) -> bool:
    return now - item.written > YOUNG_S


def _is_no_use(item: Item, store: Store) -> bool:
    # chunks of a killed writer spare the next one work; half a plan or tokenizer does not
    return item.kind == "leftover" and item.path.parent.name != SHARDS


def _keyed(folder: Path) -> Iterator[Path]:
    for path in _entries(folder):
        if _KEY.fullmatch(path.name) and path.is_dir():
            yield path


def _chosen(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in _entries(folder):
        if found := _CHOSEN.fullmatch(path.name):
            # a dot in front: in the making
            yield path, "" if path.name.startswith(".") else found[1] or ""


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _written(path: Path) -> float:
    newest = 0.0
    for one in (path, *(_entries(path) if path.is_dir() else ())):
        with suppress(OSError):
            newest = max(newest, one.stat().st_mtime)
    return newest


def _bytes_of(path: Path) -> int:
    with suppress(OSError):
        return 0 if path.is_dir() and not path.is_symlink() else path.lstat().st_size
    return 0
