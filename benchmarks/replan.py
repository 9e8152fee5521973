"""Another block size, split or packing: how long the plan takes, against run_clm's group_texts.

Both sides are counted for the same number of tokens. group_texts works on python lists, batches of
1,000 documents; "alone" is that function, "in map" is what run_clm waits for: with its lists made
of Arrow and Arrow made of its lists. Ours reads no token but for paragraph_start, which looks at
each once, and copies none.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from clusterlm.data.mix import SourceShare
from clusterlm.data.order import mix
from clusterlm.data.plan import plan_splits
from clusterlm.data.table import Table
from clusterlm.data.tokens.token_bytes import NewlineTokens
from clusterlm.spec.data import Data

PACKINGS = ("concat", "document_start", "paragraph_start", "best_fit", "padded")
VOCAB = 50_000
# a paragraph every 60 tokens
SHARE_OF_NEWLINES = 1 / 60
GROUPED_TOKENS = 4_000_000
ROUNDS = 3

Numbers = npt.NDArray[np.int64]


class _Tokens:
    def __init__(self, tokens: npt.NDArray[np.uint16]) -> None:
        self._tokens = tokens

    def __getitem__(self, addresses: slice) -> npt.NDArray[np.uint16]:
        return self._tokens[addresses]

    def count_trained(self, starts: Numbers, lengths: Numbers) -> Numbers:
        return lengths


def _table(num_tokens: int, mean: int) -> Table:
    """Documents of log-normal lengths, as those of real corpora are."""
    draw = np.random.default_rng(mean)
    lengths = draw.lognormal(np.log(mean) - 0.5, 1, num_tokens // mean * 2).astype(np.int64) + 1
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), num_tokens))]
    count = len(lengths)
    return Table(
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        trained=np.zeros(count, dtype=np.int64),
        keys=mix(np.arange(count, dtype=np.uint64)),
        source=np.zeros(count, dtype=np.int32),
        is_chat=np.zeros(count, dtype=np.bool_),
        is_held_back=np.zeros(count, dtype=np.bool_),
    )


def _group_texts(documents: dict[str, list[list[int]]], block_size: int) -> dict[str, Any]:
    """What run_clm does: join a batch of documents, cut it, copy the ids as labels."""
    joined = {name: list(chain(*column)) for name, column in documents.items()}
    total = len(joined["input_ids"]) // block_size * block_size
    blocks = {
        name: [column[i : i + block_size] for i in range(0, total, block_size)]
        for name, column in joined.items()
    }
    return {**blocks, "labels": blocks["input_ids"].copy()}


def _seconds_of_grouping(
    table: Table, tokens: npt.NDArray[np.uint16], block_size: int
) -> tuple[float, float]:
    """Processor seconds a token: of group_texts alone, and in `datasets.map`."""
    import datasets

    datasets.disable_progress_bars()
    last = int(np.searchsorted(np.cumsum(table.lengths), GROUPED_TOKENS))
    pairs = zip(table.starts[:last].tolist(), table.lengths[:last].tolist(), strict=True)
    ids = [tokens[start : start + length].tolist() for start, length in pairs]
    columns = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
    num_tokens = sum(map(len, ids))
    alone = time.process_time()
    for first in range(0, last, 1000):
        some = {name: column[first : first + 1000] for name, column in columns.items()}
        _group_texts(some, block_size)
    alone = time.process_time() - alone
    types = {"input_ids": "int32", "attention_mask": "int8"}
    features = {name: datasets.List(datasets.Value(kind)) for name, kind in types.items()}
    with tempfile.TemporaryDirectory() as folder:
        made = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        made.save_to_disk(folder)
        documents = datasets.load_from_disk(folder)
        in_map = time.process_time()
        documents.map(partial(_group_texts, block_size=block_size), batched=True)
        in_map = time.process_time() - in_map
    return alone / num_tokens, in_map / num_tokens


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--block-size", type=int, default=4096)
    asked = parser.parse_args()
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, VOCAB, asked.tokens, dtype=np.uint16)
    is_newline = draw.random(VOCAB) < SHARE_OF_NEWLINES
    newline = NewlineTokens(is_newline, np.zeros(VOCAB, dtype=np.bool_))
    size = asked.block_size
    print(f"\nPlan of {asked.tokens / 1e6:.0f} M tokens, blocks of {size}, one core (processor s)")
    print("  goal: about 1 s per 100 M tokens, 30 x group_texts")
    head = f"{'documents':>10}{'blocks':>10}{'padding':>9}{'lost':>8}{'s':>8}{'x alone':>9}"
    print(f"  {'packing':<18}{'mean':>6}{head}{'x in map':>9}")
    for mean in (2000, 200):
        table = _table(asked.tokens, mean)
        per_token = _seconds_of_grouping(table, tokens, size)
        alone, in_map = (seconds * int(table.lengths.sum()) for seconds in per_token)
        for packing in PACKINGS:
            data = Data.model_validate(
                {
                    "tokenizer": {"name": "x"},
                    "sources": [{"kind": "text", "path": "x"}],
                    "block_size": size,
                    "packing": packing,
                    "validation": {"fraction": 0.01},
                }
            )
            times = []
            for _ in range(ROUNDS):
                began = time.process_time()
                splits = plan_splits(table, data, [SourceShare("a")], newline, _Tokens(tokens))
                times.append(time.process_time() - began)
            split = splits["train"]
            places = split.plan.num_blocks * size
            lost = sum(split.lost.values()) / (split.num_tokens + sum(split.lost.values()))
            print(
                f"  {packing:<18}{mean:>6}{len(table):>10}{split.plan.num_blocks:>10}"
                f"{split.num_padding / places:>9.2%}{lost:>8.2%}{min(times):>8.2f}"
                f"{alone / min(times):>9.0f}{in_map / min(times):>9.0f}"
            )
        for name, seconds in (("group_texts alone", alone), ("group_texts in map", in_map)):
            print(f"  {name:<18}{mean:>6}{len(table):>10}{'':>27}{seconds:>8.2f}")


if __name__ == "__main__":
    main()
