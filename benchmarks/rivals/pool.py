"""The way of Megatron's `preprocess_data.py`: a pool tokenizes lines, one process writes them."""

from __future__ import annotations

import json
import multiprocessing
import struct
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from benchmarks.rivals.common import Task, eos_id_of, files_under, run

LINES_AT_ONCE = 32

_tokenizer: Any = None
_eos: list[int] = []


def prepare(task: Task) -> dict[str, Any]:
    """Lines go out, lists of ids come back and are appended to one file and its index."""
    dtype = np.uint16 if _size_of(task.tokenizer) < 65536 else np.int32
    lengths = []
    with (
        multiprocessing.Pool(task.processes, _start, (task.tokenizer,)) as pool,
        task.corpus.open(encoding="utf-8") as lines,
        (task.out / "text.bin").open("wb") as tokens,
    ):
        for ids in pool.imap(_encode, lines, LINES_AT_ONCE):
            tokens.write(np.array(ids, dtype=dtype).tobytes(order="C"))
            lengths.append(len(ids))
    with (task.out / "text.idx").open("wb") as index:
        index.write(struct.pack("<Q", len(lengths)))
        index.write(np.array(lengths, dtype=np.int32).tobytes())
        ends = np.cumsum(lengths, dtype=np.int64) * np.dtype(dtype).itemsize
        index.write((ends - np.array(lengths) * np.dtype(dtype).itemsize).tobytes())
    written = sum(f.stat().st_size for f in files_under(task.out))
    return {"tokens": sum(lengths), "bytes": written}


def _start(tokenizer: Path) -> None:
    global _tokenizer, _eos
    _tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    _eos = [eos_id_of(tokenizer)]


def _encode(line: str) -> list[int]:
    ids: list[int] = _tokenizer(json.loads(line)["text"])["input_ids"]
    return ids + _eos


def _size_of(tokenizer: Path) -> int:
    spec = json.loads((tokenizer / "tokenizer.json").read_text())
    return len(spec["model"]["vocab"]) + len(spec["added_tokens"])


if __name__ == "__main__":
    run(prepare)
