"""The `run_clm` script of the transformers examples up to its blocks: two `map`s over datasets.

With `GIGATOKEN=1` the fast tokenizer's drop-in stands where the other was; nothing else changes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from datasets import load_dataset
from transformers import AutoTokenizer

from benchmarks.rivals.common import Task, bytes_of, group_texts, run


class FastTokenizer:
    """gigatoken's drop-in, opened in each process: it cannot be sent to another."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self, texts: list[str]) -> Any:
        if "_opened" not in self.__dict__:
            import gigatoken

            self._opened = gigatoken.Tokenizer(self._folder).as_hf()
        return self._opened(texts)

    def __getstate__(self) -> dict[str, str]:
        return {"_folder": self._folder}


def prepare(task: Task) -> dict[str, Any]:
    """Load, tokenize, group; everything is cached by datasets under `task.out`."""
    cache = str(task.out / "cache")
    raw = load_dataset("json", data_files=str(task.corpus), split="train", cache_dir=cache)
    tokenizer: Any = AutoTokenizer.from_pretrained(task.tokenizer, use_fast=True)
    if os.environ.get("GIGATOKEN"):
        tokenizer = FastTokenizer(str(task.tokenizer))

    def tokenize(examples: dict[str, list[str]]) -> Any:
        return tokenizer(examples["text"])

    def group(examples: dict[str, list[list[int]]]) -> dict[str, Any]:
        return group_texts(examples, task.block_size)

    tokenized = raw.map(
        tokenize,
        batched=True,
        num_proc=task.processes,
        remove_columns=raw.column_names,
        desc="Running tokenizer on dataset",
    )
    blocks = tokenized.map(
        group,
        batched=True,
        num_proc=task.processes,
        desc=f"Grouping texts in chunks of {task.block_size}",
    )
    # the first batch, as a trainer would fetch it
    first = blocks[:8]
    files = [[entry["filename"] for entry in part.cache_files] for part in (tokenized, blocks)]
    (task.out / "tokenized.txt").write_text("\n".join(files[0]))
    return {
        "tokens": len(blocks) * task.block_size,
        "first": len(first["input_ids"]),
        "bytes": bytes_of(Path(name) for name in {*files[0], *files[1]}),
    }


if __name__ == "__main__":
    run(prepare)
