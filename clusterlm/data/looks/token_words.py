"""Tokens as people read them: the piece of text that each stands for.

Half a character is no text: tokens that share one are shown together, and bytes that make none as
escapes. Nothing here is fit for a terminal yet, see `visible`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from clusterlm.data.store.documents import Mask
from clusterlm.data.tokens.token_bytes import (
    byte_alphabet,
    is_byte_level,
    read_tokenizer,
    texts_of_tokens,
)
from clusterlm.spec.wording import printable

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_LONGEST_CHARACTER = 4


class Token(NamedTuple):
    """One token; several where they share a character.

    Attributes:
        text: as it stands in the document.
        weight: of it in the loss; 0 when it is not trained.
    """

    ids: tuple[int, ...]
    text: str
    weight: float
    is_special: bool = False


class TokenWords:
    """The texts of a vocabulary."""

    def __init__(self, tokenizer_json: Path, is_special: Mask) -> None:
        parts = read_tokenizer(tokenizer_json)
        self._added = {token["id"] for token in parts.get("added_tokens") or []}
        self._texts = texts_of_tokens(parts)
        self._alphabet = byte_alphabet() if is_byte_level(parts) else None
        self._is_special = is_special

    def raw(self, token: int) -> bytes:
        """The bytes that a token stands for."""
        text = self._texts.get(token, "")
        if token in self._added:
            return text.encode()
        if self._alphabet is not None and all(letter in self._alphabet for letter in text):
            return bytes(self._alphabet[letter] for letter in text)
        if byte := _BYTE.fullmatch(text):
            return bytes([int(byte[1], 16)])
        return text.replace("▁", " ").encode()

    def word(self, token: int) -> str:
        """The text of a single token."""
        return self.raw(token).decode(errors="backslashreplace")

    def tokens(self, ids: Sequence[int], weights: Sequence[float]) -> Iterator[Token]:
        """A document, token by token."""
        held: list[tuple[int, float]] = []
        data = b""
        for one, weight in zip(ids, weights, strict=True):
            if self._is_special[one]:
                yield from self._apart(held)
                held, data = [], b""
                yield Token((one,), self.word(one), weight, is_special=True)
                continue
            held.append((one, weight))
            data += self.raw(one)
            text = _decoded(data)
            if text is None and _is_cut_short(data):
                continue
            # what is trained in part is shown apart, whatever it looks like
            if text is None or len({weight for _, weight in held}) > 1:
                yield from self._apart(held)
            else:
                yield Token(tuple(i for i, _ in held), text, weight)
            held, data = [], b""
        yield from self._apart(held)

    def _apart(self, held: Sequence[tuple[int, float]]) -> Iterator[Token]:
        for one, weight in held:
            yield Token((one,), self.word(one), weight)


def visible(text: str) -> str:
    r"""The text with nothing in it that moves a cursor or turns the direction of writing.

    A newline stays one, with a mark in front; everything else that cannot be seen is an escape:
    \x1b, \t, \u202e.
    """
    return "↵\n".join(map(printable, text.split("\n")))


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _is_cut_short(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and len(data) - error.start < (
            _LONGEST_CHARACTER
        )
    return False
