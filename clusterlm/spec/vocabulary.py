"""Rows of a model's embedding against entries of a tokenizer: sizes, and what may be done.

Light (JSON only): `check` asks on the login node; the data phase asks again when it knows more.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from clusterlm.spec.data import Tokenizer
from clusterlm.spec.model import Vocab

LARGEST_TOKENIZER = 256 * 2**20
"""Bytes of a tokenizer.json; that of 262,144 entries has 33 MB."""


def rows_of(config: dict[str, Any]) -> int | None:
    """Rows of the embedding, by a model's config; None when it does not say."""
    for level in (config.get("text_config"), config):
        rows = level.get("vocab_size") if isinstance(level, dict) else None
        if type(rows) is int:
            return rows
    return None


def read_config(folder: str) -> dict[str, Any] | None:
    """The config of a model's folder; None when there is none that can be read."""
    return _read(os.path.join(folder, "config.json"))


def known_entries(spec: Tokenizer) -> int | None:
    """Entries of the tokenizer, extended ones included; None as long as they are not known.

    Learned and trained ones follow from the texts, those of a hub id from what lies there.
    """
    if spec.name is None or not os.path.isabs(spec.name):
        return None
    parts = _read(os.path.join(spec.name, "tokenizer.json"))
    more = spec.extend
    if parts is None or (more and more.learn):
        return None
    try:
        spelt = parts["model"]["vocab"]
        added = parts.get("added_tokens") or []
        # Unigram lists [piece, score]; the others map pieces to ids
        ids = range(len(spelt)) if isinstance(spelt, list) else spelt.values()
        size = 1 + max(max(ids, default=-1), max((t["id"] for t in added), default=-1))
        known = {t["content"] for t in added} | (set(spelt) if isinstance(spelt, dict) else set())
    except (KeyError, TypeError, AttributeError):
        return None
    wanted = {*more.special_tokens, *more.tokens} if more else set()
    return size + len(wanted - known)


def misfit(vocab: Vocab, rows: int, entries: int) -> str | None:
    """Why model and tokenizer may not go together so; None when they may."""
    sizes = f"the model has {rows:,} rows and the tokenizer {entries:,} entries"
    if vocab.expect is not None and vocab.expect != [rows, entries]:
        model, tokenizer = vocab.expect
        why = f"model.vocab.expect says {model:,} rows and {tokenizer:,} entries"
        return f"{sizes}, but {why}; {possible(rows, entries)}"
    if vocab.mode == "strict" and rows != entries:
        return f"{sizes}, and strict wants as many; {possible(rows, entries)}"
    if vocab.mode == "keep" and entries > rows:
        return f"{sizes}, and keep gives it none; {possible(rows, entries)}"
    return None


def possible(rows: int, entries: int) -> str:
    """What a job could write for these sizes."""
    if entries > rows:
        ways = f"mode: resize ({entries - rows:,} new rows, made before the training)"
    elif entries < rows:
        ways = f"mode: keep ({rows - entries:,} rows have no entry; a model is never cut down)"
    else:
        ways = "mode: keep, or strict"
    return f"possible: {ways}, with expect: [{rows}, {entries}] or without"


def _read(path: str) -> dict[str, Any] | None:
    try:
        if not os.path.isabs(path) or os.path.getsize(path) > LARGEST_TOKENIZER:
            return None
        value = json.loads(Path(path).read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
