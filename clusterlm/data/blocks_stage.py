"""From shards to the plan of blocks: what is kept, how it is split and packed, what is counted."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

import clusterlm
from clusterlm.data.cache import shard_of
from clusterlm.data.chosen import choose_documents
from clusterlm.data.left_out import left_out
from clusterlm.data.plan import SplitPlan
from clusterlm.data.planning import fractions_of, plan_blocks
from clusterlm.data.prepared import PreparedFolder
from clusterlm.data.progress import Progress, Report
from clusterlm.data.quarantine import Quarantined, write_quarantine
from clusterlm.data.reading import Reading
from clusterlm.data.store.documents import BAD, token_dtype
from clusterlm.data.store.shard_files import ShardFiles
from clusterlm.data.store.shards import StoredShard
from clusterlm.data.store.stored import Stored, read_stored
from clusterlm.data.summary import counts_of
from clusterlm.data.tokenizer import Vocabulary, load_vocabulary
from clusterlm.data.whole import FORMAT, Manifest
from clusterlm.spec.data import Data

MAX_NAMED = 5
"""Bad records that the manifest names, of each source."""


def prepare_blocks(
    data: Data,
    readings: Sequence[Reading],
    shards: Sequence[Sequence[StoredShard]],
    folder: PreparedFolder,
    tokenizer: Path,
    *,
    workers: int,
    report: Report,
) -> Manifest:
    """Choose documents, plan blocks, write them into `folder`.

    Args:
        data: the spec.
        readings: its sources.
        shards: of each of them.
        folder: the prepared data in the making.
        tokenizer: its folder.
        workers: processes.
        report: told how far it is.

    Returns:
        What the manifest says about it.

    Raises:
        DataError: nothing is left, or it fills no block.
    """
    report(Progress("choosing documents"))
    weights = [reading.weights for reading, own in zip(readings, shards, strict=True) for _ in own]
    flat = [shard for own in shards for shard in own]
    places = [reading.place for reading, own in zip(readings, shards, strict=True) for _ in own]
    files = [shard_of(s.root, s.num_tokens, w) for s, w in zip(flat, weights, strict=True)]
    vocabulary = load_vocabulary(tokenizer)
    dtype = np.dtype(token_dtype(vocabulary.size)).name
    chosen = choose_documents(
        read_stored(readings, shards),
        files,
        dtype,
        data.dedup,
        fractions_of(readings, data),
        folder.cache,
        workers=workers,
        report=report,
    )
    report(Progress("making blocks"))
    examples = {
        one.source: f"; for one, {one.place}: {one.detail}"
        for one in left_out(readings, shards, limit=1)
    }
    splits = plan_blocks(
        chosen.stored, readings, ShardFiles(files, dtype), data, tokenizer, examples
    )
    for name, split in splits.items():
        folder.write_plan(name, split.plan)
    quarantined = Quarantined(0, 0)
    if data.on_bad_record == "quarantine":
        quarantined = write_quarantine(readings, shards, folder.folder)
    return (
        _about(data, vocabulary, readings, dtype)
        | {
            "shards": [
                {
                    "key": shard.key,
                    "source": place,
                    "first_file": shard.first_file,
                    "num_tokens": shard.num_tokens,
                    "weights": list(own),
                    "files": shard.files,
                }
                for shard, place, own in zip(flat, places, weights, strict=True)
            ],
            "quarantined": quarantined.num_copied,
            "not_quarantined": quarantined.num_missing,
            "bad_records": [
                f"{one.place}: {one.detail}"
                for one in left_out(readings, shards, reason=BAD, limit=MAX_NAMED)
            ],
            "dedup": {"num_near": chosen.num_near, "num_compared": chosen.num_compared},
        }
        | _counted(chosen.stored, readings, data)
        | {"splits": {name: _split_about(split) for name, split in splits.items()}}
    )


def _counted(stored: Stored, readings: Sequence[Reading], data: Data) -> Manifest:
    table, count = stored.table, len(readings)
    documents = np.bincount(table.source, minlength=count)
    tokens = np.bincount(table.source, weights=table.lengths, minlength=count)
    supervised = table.num_trained(isolated=data.isolate_documents)
    trained = np.bincount(table.source, weights=supervised, minlength=count)
    return counts_of(
        stored.counts,
        [(reading.place, reading.source.path or str(reading.source.hub)) for reading in readings],
        [(len(reading.files), reading.num_bytes) for reading in readings],
        [(int(d), int(n), int(t)) for d, n, t in zip(documents, tokens, trained, strict=True)],
    )


def _split_about(split: SplitPlan) -> Manifest:
    return {
        "documents": split.num_documents,
        "blocks": split.plan.num_blocks,
        "tokens": split.num_tokens,
        "supervised_tokens": split.num_supervised,
        "padding": split.num_padding,
        "lost": dict(split.lost),
        "dropped": dict(split.dropped),
        "sources": [asdict(use) for use in split.sources],
    }


def _about(data: Data, vocabulary: Vocabulary, readings: Sequence[Reading], dtype: str) -> Manifest:
    versions = {name: importlib.metadata.version(name) for name in ("tokenizers", "numpy")}
    with_chat = any(reading.is_conversation for reading in readings)
    return {
        "format": FORMAT,
        "versions": {"clusterlm": clusterlm.__version__, **versions},
        "block_size": data.block_size,
        "packing": data.packing,
        "packing_of_kinds": _packings(data, readings),
        "dtype": dtype,
        "vocab_size": vocabulary.size,
        "eos_id": vocabulary.eos_id,
        "pad_id": vocabulary.pad_id,
        "stop_ids": vocabulary.stop_ids(with_chat=with_chat),
    }


def _packings(data: Data, readings: Sequence[Reading]) -> dict[str, str]:
    """How texts and conversations are packed, of those that there are."""
    is_padded = data.packing == "padded"
    found: dict[str, str] = {}
    if not all(reading.is_conversation for reading in readings):
        found["texts"] = data.packing
    if any(reading.is_conversation for reading in readings):
        found["conversations"] = "padded" if is_padded else "best_fit"
    return found
