"""How the entries of a new tokenizer are spelt with the pieces of an old one.

Of a vocabulary the entry itself is taken apart as the old model would (`▁你好`, `ä½łå¥½`), for a
learned entry need not be a text: it can be half a letter. What was added as a whole (marks, words)
is a text, and encoded as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from clusterlm.data.tokens.token_bytes import (
    BYTE_TOKEN,
    is_byte_level,
    read_tokenizer,
    texts_of_tokens,
)

Pieces = list[tuple[int, int]]
"""(id, length in bytes)."""


@dataclass(frozen=True)
class Agreement:
    """Two tokenizers, id by id.

    Attributes:
        num_old: the new one has an entry of its own from here on.
        differ: ids before that, whose entry is another.
        examples: some of them, in words.
    """

    num_old: int
    differ: int
    examples: list[str]


def compare(old: Path, new: Path) -> Agreement:
    """Whether the new tokenizer goes on where the old one ends."""
    before, after = (texts_of_tokens(read_tokenizer(p / "tokenizer.json")) for p in (old, new))
    num_old = max(before) + 1
    differ = [i for i in sorted(after) if i < num_old and before.get(i) != after[i]]
    examples = [f"id {i}: {before.get(i)!r} there, {after[i]!r} here" for i in differ[:3]]
    return Agreement(num_old, len(differ), examples)


def spell(old: Path, new: Path, ids: range) -> Iterator[Pieces]:
    """The old pieces of each of these ids, in their order; none for an id without an entry."""
    old_parts, new_parts = (read_tokenizer(p / "tokenizer.json") for p in (old, new))
    encoder = tokenizers.Tokenizer.from_file(str(old / "tokenizer.json"))
    encoder.no_truncation()
    decoder = tokenizers.Tokenizer.from_file(str(new / "tokenizer.json"))
    lengths = _lengths(old_parts)
    texts = texts_of_tokens(new_parts)
    whole = {token["id"] for token in new_parts.get("added_tokens") or []}
    is_alike = is_byte_level(old_parts) == is_byte_level(new_parts)
    for i in ids:
        text = texts.get(i)
        if text is None:
            found: list[int] = []
        elif i in whole:
            found = encoder.encode(text, add_special_tokens=False).ids
        elif is_alike:
            found = [token.id for token in encoder.model.tokenize(text)]
        else:
            found = encoder.encode(decoder.decode([i]), add_special_tokens=False).ids
        yield [(piece, lengths[piece]) for piece in found]


def _lengths(parts: dict[str, Any]) -> dict[int, int]:
    is_bytes = is_byte_level(parts)
    added = {token["id"] for token in parts.get("added_tokens") or []}
    return {
        i: _num_bytes(text, is_bytes=is_bytes and i not in added)
        for i, text in texts_of_tokens(parts).items()
    }


def _num_bytes(text: str, *, is_bytes: bool) -> int:
    if is_bytes or BYTE_TOKEN.fullmatch(text):
        # a letter for each byte; <0xE4> is one byte
        return max(1, len(text)) if is_bytes else 1
    return max(1, len(text.replace("▁", " ").encode()))
