"""Arguments and the closing line of every program that is compared."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """What is to be done."""

    corpus: Path
    tokenizer: Path
    out: Path
    processes: int
    block_size: int
    again: bool


def run(work: Callable[[Task], dict[str, Any]]) -> None:
    """Do the work of the command line; print what came out and the seconds it took.

    A program calls this after its imports, so that `work_s` is without them.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--block-size", type=int, default=4096)
    parser.add_argument("--again", action="store_true", help="the output is there already")
    task = Task(**vars(parser.parse_args()))
    task.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    found = work(task)
    print(json.dumps({"work_s": time.perf_counter() - began, **found}))


def group_texts(columns: dict[str, Sequence[Sequence[int]]], block_size: int) -> dict[str, Any]:
    """The grouping of run_clm: all rows of a batch in one, cut every block, the rest dropped."""
    joined = {name: list(chain(*rows)) for name, rows in columns.items()}
    total = len(next(iter(joined.values()))) // block_size * block_size
    blocks: dict[str, Any] = {
        name: [row[at : at + block_size] for at in range(0, total, block_size)]
        for name, row in joined.items()
    }
    blocks["labels"] = blocks["input_ids"].copy()
    return blocks


def eos_id_of(tokenizer: Path) -> int:
    """The id of the end-of-text token that the tokenizer's config names."""
    eos = json.loads((tokenizer / "tokenizer_config.json").read_text())["eos_token"]
    added = json.loads((tokenizer / "tokenizer.json").read_text())["added_tokens"]
    return next(int(token["id"]) for token in added if token["content"] == eos)


def bytes_of(files: Iterable[Path]) -> int:
    """Size of all of them."""
    return sum(file.stat().st_size for file in files if file.is_file())


def files_under(folder: Path) -> Iterator[Path]:
    """Every file in it."""
    return (path for path in folder.rglob("*") if path.is_file())
