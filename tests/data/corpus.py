"""Small corpora, specs over them, and their prepared data."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from clusterlm.data.cache import Cache, open_cache
from clusterlm.data.fingerprint import describe, fingerprint_of_parts
from clusterlm.data.preprocess import preprocess
from clusterlm.data.store.shards import open_shard
from clusterlm.data.whole import shards_folder
from clusterlm.paths import CachePaths
from clusterlm.spec.data import Data

WORDS = ["quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "while", "wizards", "box"]


def sentence(number: int, length: int = 20) -> str:
    """A text of `length` words, another one for each number."""
    words = [WORDS[(number * 7 + i * (number % 5 + 1)) % len(WORDS)] for i in range(length)]
    return f"{number} " + " ".join(words) + "."


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_texts(path: Path, count: int, *, length: int = 20) -> Path:
    return write_rows(path, ({"text": sentence(i, length)} for i in range(count)))


def write_chats(path: Path, count: int) -> Path:
    return write_rows(path, ({"messages": chat(i)} for i in range(count)))


def chat(number: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"question {number}?"},
        {"role": "assistant", "content": f"answer {number}: {sentence(number, 4)}"},
        {"role": "user", "content": "and then"},
        {"role": "assistant", "content": f"then {number + 1}"},
    ]


def fingerprint_of(data: Data) -> str:
    return fingerprint_of_parts(describe(data))


def data_of(*sources: dict[str, Any], **options: Any) -> Data:
    """A spec with a tokenizer of 300 words, trained on the sources, and blocks of 32 tokens."""
    values = {
        "tokenizer": {"train": {"vocab_size": 300}},
        "block_size": 32,
        "sources": list(sources),
    }
    return Data.model_validate(values | options)


def text_source(path: Path, **options: Any) -> dict[str, Any]:
    return {"kind": "text", "path": str(path), **options}


def chat_source(path: Path, **options: Any) -> dict[str, Any]:
    return {"kind": "chat", "path": str(path), **options}


def prepare(data: Data, *, workers: int = 1) -> Cache:
    """Preprocess `data` into the cache folder of the environment, and open it."""
    fingerprint = fingerprint_of(data)
    root = CachePaths.of(fingerprint).root
    preprocess(data, root, workers=workers, report=lambda progress: None, asked=fingerprint)
    return open_cache(root, fingerprint)


def files_of(root: Path) -> dict[str, bytes]:
    """Everything below `root`, by its name, but for the memory of hashes (it holds times)."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".hashes.json"
    }


def documents_in(cache: Cache) -> Iterator[list[int]]:
    """The documents in the shards, as ids, in reading order."""
    return documents_of(cache, "length")


def documents_of(cache: Cache, column: str) -> Iterator[list[int]]:
    """The tokens of the rows that are stored, whatever was chosen of them."""
    for about in cache.manifest["shards"]:
        shard = open_shard(shards_folder(cache.root) / about["key"])
        assert shard is not None
        tokens, rows = shard.tokens(), shard.documents()
        for chunk in shard.chunks:
            place = chunk.token_start
            for row in rows[chunk.document_start : chunk.document_start + chunk.num_documents]:
                yield tokens[place : place + int(row[column])].tolist()
                place += int(row[column])


def planned_documents(cache: Cache, split: str = "train") -> set[tuple[int, ...]]:
    """What the blocks of a split are made of, segment by segment."""
    tokens = cache.tokens()
    starts = np.load(cache.root / f"{split}.starts.npy")
    lengths = np.load(cache.root / f"{split}.lengths.npy")
    return {
        tuple(tokens[s : s + n].tolist())
        for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)
    }


def decoded(cache: Cache, ids: list[int]) -> str:
    """The text of some tokens, with those that are no text."""
    tokenizer = Tokenizer.from_file(str(cache.tokenizer_dir / "tokenizer.json"))
    return str(tokenizer.decode(ids, skip_special_tokens=False))


def stream_of(cache: Cache) -> list[int]:
    """All stored tokens."""
    return [token for document in documents_in(cache) for token in document]


@contextmanager
def cache_at(folder: Path) -> Iterator[None]:
    """Caches go below `folder`; for tests where a fixture cannot be had."""
    before = os.environ.get("CLUSTERLM_CACHE_DIR")
    os.environ["CLUSTERLM_CACHE_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["CLUSTERLM_CACHE_DIR"]
        else:
            os.environ["CLUSTERLM_CACHE_DIR"] = before
