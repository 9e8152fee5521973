"""The way of Megatron's `preprocess_data_fast.py`: gigatoken encodes the file whole, in memory."""

from __future__ import annotations

from typing import Any

import awkward
import gigatoken
import numpy as np

from benchmarks.rivals.common import Task, eos_id_of, files_under, run


def prepare(task: Task) -> dict[str, Any]:
    """Encode, put the end-of-text token behind each document, write."""
    tokenizer = gigatoken.Tokenizer(task.tokenizer / "tokenizer.json")
    eos = eos_id_of(task.tokenizer)
    rows = tokenizer.encode_files(gigatoken.JsonlFileSource([str(task.corpus)], "text"))
    lengths = np.asarray(awkward.num(rows), dtype=np.int64)
    flat = np.asarray(awkward.flatten(rows))
    with_eos = np.insert(flat, np.cumsum(lengths), eos)
    dtype = np.uint16 if tokenizer.vocab_size < 65536 else np.int32
    (task.out / "text.bin").write_bytes(with_eos.astype(dtype).tobytes())
    size = np.dtype(dtype).itemsize
    ends = np.cumsum(lengths + 1) * size
    with (task.out / "text.idx").open("wb") as index:
        index.write((lengths + 1).astype(np.int32).tobytes())
        index.write((ends - (lengths + 1) * size).tobytes())
    written = sum(f.stat().st_size for f in files_under(task.out))
    return {"tokens": len(with_eos), "bytes": written}


if __name__ == "__main__":
    run(prepare)
