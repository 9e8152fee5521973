"""What all sides train on: the same ids, the same labels, made once and kept under `.bench/`.

    chat   short conversations: one sentence is asked, one to three are answered and trained
    text   files of Python's standard library, many times as long as a block

Both are made of what every Python has. Our side reads its prepared blocks; the others get the
documents of these blocks, each as a row of input_ids and labels.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import sysconfig
from pathlib import Path
from typing import Any

from benchmarks.folder import BENCH

CHATS = 8_000
BLOCK = 256
IGNORE = -100
PACKINGS = {"chat": "best_fit", "text": "concat"}
VOCAB = 4096
STDLIB = Path(sysconfig.get_path("stdlib"))
EXCLUDE = ["**/test/**", "**/tests/**", "**/site-packages/**", "**/lib2to3/**", "**/idlelib/**"]
_SENTENCE = re.compile(r"[A-Z][^.!?\n\"'`_=(){}\[\]]{20,110}[.!?]")


def prepare(kind: str, packing: str, block: int) -> Path:
    """The folder of prepared data, made if it is not there."""
    from clusterlm.data.preprocess import preprocess
    from clusterlm.data.whole import why_not_whole
    from clusterlm.spec.data import Data

    root = BENCH / "train" / f"{kind}-{packing}-{block}"
    if root.exists() and why_not_whole(root) is None:
        return root
    source: dict[str, Any] = {"kind": "text", "path": f"{STDLIB}/**/*.py", "exclude": EXCLUDE}
    data: dict[str, Any] = {"packing": packing, "block_size": block, "sources": [source]}
    data["tokenizer"] = {"train": {"vocab_size": VOCAB}}
    if kind == "chat":
        data["sources"] = [{"kind": "chat", "path": str(_chats())}]
        # the tokenizer of the text, so that both have one model
        data["tokenizer"] = {"name": str(prepare("text", "concat", BLOCK) / "tokenizer")}
        data["tokenizer"]["chat_template"] = "chatml"
    preprocess(Data.model_validate(data), root, workers=2, report=lambda progress: None)
    return root


def documents(kind: str, block: int) -> dict[str, list[list[int]]]:
    """input_ids and labels of each document, without padding; long texts in pieces of a block."""
    from clusterlm.data.cache import open_cache

    blocks = open_cache(prepare(kind, PACKINGS[kind], block)).split("train")
    columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for index in range(len(blocks)):
        row = blocks[index]
        starts = [*(row["position_ids"] == 0).nonzero()[0].tolist(), block]
        for begin, end in itertools.pairwise(starts):
            # padding has positions of its own, and chats without a label are not trained
            if (row["labels"][begin:end] != IGNORE).any():
                for name, values in columns.items():
                    values.append(row[name][begin:end].tolist())
    return columns


def _chats() -> Path:
    path = BENCH / "train" / f"chats-{CHATS}.jsonl"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    chance = random.Random(0)
    found: set[str] = set()
    for file in sorted(STDLIB.glob("*.py")):
        text = " ".join(file.read_text(encoding="utf-8", errors="replace").split())
        found.update(_SENTENCE.findall(text))
    sentences = sorted(found)
    aside = path.with_suffix(".part")
    with aside.open("w", encoding="utf-8") as rows:
        for _ in range(CHATS):
            answer = " ".join(chance.choices(sentences, k=chance.randint(1, 3)))
            turns = [("user", chance.choice(sentences)), ("assistant", answer)]
            messages = [{"role": role, "content": content} for role, content in turns]
            rows.write(json.dumps({"messages": messages}) + "\n")
    aside.rename(path)
    return path
