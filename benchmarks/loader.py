"""Blocks on their way into the model: tokens a second of our loader and of run_clm's.

run_clm: an Arrow dataset with three list columns, read one by one, `default_data_collator`.
clusterlm: token files, read a batch at a time, with positions and labels made on the way.

Both are torch's DataLoader without workers, 8 blocks a batch, shuffled; they take turns, and
processor time counts, so that others on the machine hit both alike.
"""

from __future__ import annotations

import argparse
import gc
import os
import pickle
import tempfile
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from clusterlm.data.blocks import BlockFiles, Blocks, plan_file
from clusterlm.data.pack import PLAN_COLUMNS, Plan, with_isolation
from clusterlm.data.pack_fit import fit_documents
from clusterlm.data.pack_stream import concat_blocks
from clusterlm.data.store.shard_files import Shard
from clusterlm.data.store.storage import READ_ENV
from clusterlm.train.blocks import BlockDataset, collate_blocks

BATCH, SIZE, VOCAB = 8, 4096, 50_000
ROUNDS = 5
COLD_BATCHES = 100
RUN_CLM_BLOCKS = 160
# a shard holds 1 GiB of text, about this many tokens
SHARD_TOKENS = 40_000_000


def _run_clm(folder: Path) -> DataLoader[Any]:
    import datasets
    from transformers import default_data_collator

    datasets.disable_progress_bars()
    draw = np.random.default_rng(0)
    ids = [draw.integers(0, VOCAB, SIZE).tolist() for _ in range(RUN_CLM_BLOCKS)]
    types = {"input_ids": "int32", "attention_mask": "int8", "labels": "int64"}
    features = {name: datasets.List(datasets.Value(kind)) for name, kind in types.items()}
    columns = {"input_ids": ids, "attention_mask": [[1] * SIZE] * len(ids), "labels": ids}
    made = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    made.save_to_disk(str(folder))
    blocks = datasets.load_from_disk(str(folder))
    return DataLoader(blocks, batch_size=BATCH, shuffle=True, collate_fn=default_data_collator)


def _shards(folder: Path, num_tokens: int, dtype: str) -> tuple[Shard, ...]:
    draw, shards = np.random.default_rng(0), []
    for first in range(0, num_tokens, SHARD_TOKENS):
        path, count = folder / f"{first}{dtype[1:]}.bin", min(SHARD_TOKENS, num_tokens - first)
        draw.integers(0, VOCAB, count, dtype=np.uint32).astype(dtype).tofile(path)
        shards.append(Shard(path, count))
    return tuple(shards)


def _plan(num_tokens: int, packing: str, mean: int, *, isolate: bool) -> Plan:
    draw = np.random.default_rng(mean)
    lengths = draw.lognormal(np.log(mean) - 0.5, 1, num_tokens // mean * 2).astype(np.int64) + 1
    ends = np.cumsum(lengths)
    # none may lie across two shards
    starts, shard = ends - lengths, ends // SHARD_TOKENS
    inside = (ends <= num_tokens) & (starts // SHARD_TOKENS == shard)
    order = draw.permutation(np.flatnonzero(inside))
    pack = concat_blocks if packing == "concat" else fit_documents
    return with_isolation(pack(starts[order], lengths[order], SIZE), isolate)


def _blocks(folder: Path, plan: Plan, shards: tuple[Shard, ...], dtype: str) -> Blocks:
    folder.mkdir()
    for column in PLAN_COLUMNS:
        np.save(folder / plan_file("train", column), getattr(plan, column))
    return Blocks(BlockFiles(folder, "train", shards, dtype, SIZE, 0))


def _loader(dataset: BlockDataset) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=BATCH, sampler=dataset.order, collate_fn=collate_blocks)


def _speed(batches: Iterable[dict[str, torch.Tensor]], clock: Any) -> float:
    """Million tokens a second."""
    began, num_tokens = clock(), 0
    for batch in batches:
        num_tokens += batch["input_ids"].numel()
    return num_tokens / (clock() - began) / 1e6


def _forget(folder: Path) -> None:
    """Take the files out of the page cache, so that they come from the disk again."""
    for path in folder.rglob("*.bin"):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--cold", action="store_true", help="also with files out of the page cache")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        loaders = {"run_clm": _run_clm(folder / "arrow")}
        for dtype, bits in (("<u2", 16), ("<u4", 32)):
            shards = _shards(folder, asked.tokens, dtype)
            for packing, mean, isolate in (
                ("concat", 2000, True),
                ("concat", 2000, False),
                ("best_fit", 2000, True),
                ("concat", 200, True),
            ):
                title = f"{packing}, mean {mean}, isolated {isolate}, {bits} bits"
                plan = _plan(asked.tokens, packing, mean, isolate=isolate)
                blocks = _blocks(folder / title, plan, shards, dtype)
                loaders[title] = _loader(BlockDataset(blocks, seed=0))
        speeds: dict[str, list[float]] = {title: [] for title in loaders}
        for round_ in range(ROUNDS + 1):
            for title, loader in loaders.items():
                speed = _speed(loader, time.process_time)
                # the first round opens files and finds its memory
                if round_:
                    speeds[title].append(speed)
        print(f"\nLoader, {BATCH} x {SIZE} tokens, no workers   (goal: 300 x run_clm)")
        print(f"  {'':<44}{'Mtok/s':>8}{'max':>8}{'x run_clm':>11}")
        base = float(np.median(speeds["run_clm"]))
        for title, found in speeds.items():
            middle = float(np.median(found))
            print(f"  {title:<44}{middle:>8.1f}{max(found):>8.1f}{middle / base:>11.0f}")
        if asked.cold:
            sent = pickle.dumps(blocks)
            # what is mapped stays in the page cache
            del loaders, loader, blocks
            gc.collect()
            _print_cold(folder, sent)


def _print_cold(folder: Path, sent: bytes) -> None:
    """The beginning of a training on files that nobody has read: how long each batch takes."""
    print(f"\nFiles out of the page cache, first {COLD_BATCHES} batches (wall time)")
    for way in ("mmap", "pread"):
        os.environ[READ_ENV] = way
        found = []
        for seed in range(ROUNDS):
            gc.collect()
            _forget(folder)
            dataset = BlockDataset(pickle.loads(sent), seed)
            found.append(_speed(islice(_loader(dataset), COLD_BATCHES), time.perf_counter))
            del dataset
        print(f"  {way:<44}{np.median(found):>8.1f}{max(found):>8.1f}")


if __name__ == "__main__":
    main()
