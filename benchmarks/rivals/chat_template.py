"""transformers' own way to ids and trained tokens: `apply_chat_template` on each conversation."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from benchmarks.rivals.common import Task, run


def prepare(task: Task) -> dict[str, Any]:
    """Ids and assistant mask of each conversation, one behind the other; their digests."""
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    ids: list[int] = []
    mask: list[int] = []
    with task.corpus.open(encoding="utf-8") as rows:
        for row in rows:
            encoded = tokenizer.apply_chat_template(
                json.loads(row)["messages"],
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
            ids += encoded["input_ids"]
            mask += encoded["assistant_masks"]
    return {
        "tokens": len(ids),
        "trained": sum(mask),
        "ids": hashlib.sha256(np.array(ids, dtype="<u4")).hexdigest(),
        "mask": hashlib.sha256(np.array(mask, dtype=np.uint8)).hexdigest(),
    }


if __name__ == "__main__":
    run(prepare)
