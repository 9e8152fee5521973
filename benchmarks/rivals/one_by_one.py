"""The slides' script: `batched=False`, one text a call, long texts tokenized in parts."""

from __future__ import annotations

from typing import Any

from datasets import load_dataset
from transformers import AutoTokenizer

from benchmarks.rivals.common import Task, files_under, group_texts, run

LONG_CHARS = 100_000


def prepare(task: Task) -> dict[str, Any]:
    """Load, tokenize one by one, group."""
    cache = str(task.out / "cache")
    raw = load_dataset("json", data_files=str(task.corpus), split="train", cache_dir=cache)
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer, use_fast=True)

    def tokenize(example: dict[str, str]) -> dict[str, list[int]]:
        whole: dict[str, list[int]] = {"input_ids": [], "attention_mask": []}
        for part in _parts_of(example["text"]):
            encoded = tokenizer(part)
            for name, values in whole.items():
                values.extend(encoded[name])
        return whole

    def group(examples: dict[str, list[list[int]]]) -> dict[str, Any]:
        return group_texts(examples, task.block_size)

    tokenized = raw.map(
        tokenize, batched=False, num_proc=task.processes, remove_columns=raw.column_names
    )
    blocks = tokenized.map(group, batched=True, num_proc=task.processes)
    return {
        "tokens": len(blocks) * task.block_size,
        "bytes": sum(
            f.stat().st_size for f in files_under(task.out) if f.name.startswith("cache-")
        ),
    }


def _parts_of(text: str) -> list[str]:
    """At most LONG_CHARS each, cut behind a newline where there is one."""
    parts, start = [], 0
    while len(text) - start > LONG_CHARS:
        end = text.rfind("\n", start, start + LONG_CHARS) + 1 or start + LONG_CHARS
        parts.append(text[start:end])
        start = end
    parts.append(text[start:])
    return parts


if __name__ == "__main__":
    run(prepare)
