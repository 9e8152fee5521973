r"""What the tokens of a vocabulary are as bytes: where each begins in a text, which end a line.

A byte-level tokenizer (GPT-2, Llama-3, Qwen) loses nothing: its tokens, one behind the other, are
the text. So the places of the tokens follow from their lengths, and no engine has to give offsets:

    text     "Hi there\n"       ids     [Hi, Ġthere, Ċ]
    lengths  [2, 6, 1]           starts  [0, 2, 8]

A vocabulary of the SentencePiece kind (`▁there`, `<0x0A>`) may add or merge spaces; of it only the
ends of lines are told.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clusterlm.errors import DataError

Flags = npt.NDArray[np.bool_]

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


@lru_cache(maxsize=1)
def byte_alphabet() -> dict[str, int]:
    """The letter that GPT-2's vocabulary writes for each byte: `Ġ` is a space, `Ċ` a newline."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in plain)
    # those that cannot be seen are moved up
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def read_tokenizer(tokenizer_json: Path) -> dict[str, Any]:
    """The parts of a tokenizer. Takes 0.3 s for 150 000 entries: read it once.

    Raises:
        DataError: it is no JSON, or no tokenizer.
    """
    try:
        parts = json.loads(tokenizer_json.read_bytes())
    except ValueError as error:
        raise DataError(f"{tokenizer_json}: no readable tokenizer ({error})") from error
    if not isinstance(parts, dict) or "vocab" not in (parts.get("model") or {}):
        raise DataError(f"{tokenizer_json}: no readable tokenizer (it has no model.vocab)")
    return parts


def steps_of(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The steps of a normalizer (`normalizers`) or pre-tokenizer (`pretokenizers`), one by one."""
    if part is None:
        return []
    if part.get("type") != "Sequence":
        return [part]
    return [step for inner in part[key] for step in steps_of(inner, key)]


def is_byte_level(parts: dict[str, Any]) -> bool:
    """Whether the entries of the vocabulary are spelt in GPT-2's letters for bytes."""
    steps = steps_of(parts.get("pre_tokenizer"), "pretokenizers")
    return parts["model"].get("type") == "BPE" and any(s["type"] == "ByteLevel" for s in steps)


def texts_of_tokens(parts: dict[str, Any]) -> dict[int, str]:
    """Every entry as the vocabulary spells it, by id; added tokens as they are in a text."""
    vocab = parts["model"]["vocab"]
    if isinstance(vocab, list):  # Unigram: [piece, score]
        texts = {i: piece for i, (piece, _) in enumerate(vocab)}
    else:
        texts = {i: text for text, i in vocab.items()}
    return texts | {token["id"]: token["content"] for token in parts.get("added_tokens") or []}


@dataclass(frozen=True)
class ByteOffsets:
    """Places of tokens in their text, for a byte-level tokenizer.

    Attributes:
        lengths: bytes of each id.
        normalizes: the tokenizer brings letters with marks into one form (NFC) first.
    """

    lengths: npt.NDArray[np.int32]
    normalizes: bool

    @classmethod
    def of(cls, tokenizer_json: Path) -> ByteOffsets | None:
        """Those of a tokenizer; None when its tokens need not be the bytes of the text."""
        return cls.of_parts(read_tokenizer(tokenizer_json))

    @classmethod
    def of_parts(cls, parts: dict[str, Any]) -> ByteOffsets | None:
        steps = steps_of(parts.get("normalizer"), "normalizers")
        splits = steps_of(parts.get("pre_tokenizer"), "pretokenizers")
        adds_space = any(step.get("add_prefix_space") for step in splits)
        if not is_byte_level(parts) or adds_space or any(s["type"] != "NFC" for s in steps):
            return None
        texts = texts_of_tokens(parts)
        lengths = np.zeros(max(texts) + 1, dtype=np.int32)
        # a letter for each byte
        lengths[list(texts)] = [len(text) for text in texts.values()]
        for token in parts.get("added_tokens") or []:
            lengths[token["id"]] = len(token["content"].encode())
        return cls(lengths, bool(steps))

    def starts(self, ids: npt.NDArray[Any], num_bytes: int) -> npt.NDArray[np.int64] | None:
        """Byte at which each token begins, in a text of `num_bytes`.

        None when the tokens are not the whole text: a space was swallowed by a special token, or
        the text was normalized (ask `keeps` too: two changes may make up for each other).
        """
        lengths = self.lengths[ids].astype(np.int64)
        if int(lengths.sum()) != num_bytes:
            return None
        starts: npt.NDArray[np.int64] = np.cumsum(lengths) - lengths
        return starts

    def keeps(self, text: str) -> bool:
        """Whether the tokenizer reads `text` as it is."""
        return not self.normalizes or unicodedata.is_normalized("NFC", text)


@dataclass(frozen=True)
class NewlineTokens:
    """What tells where a paragraph begins, by id.

    Attributes:
        ends_with_newline: the text of the token ends a line.
        is_newline_only: it is white space with a newline in it, and nothing else.
    """

    ends_with_newline: Flags
    is_newline_only: Flags

    @classmethod
    def of(cls, tokenizer_json: Path) -> NewlineTokens:
        return cls.of_parts(read_tokenizer(tokenizer_json))

    @classmethod
    def of_parts(cls, parts: dict[str, Any]) -> NewlineTokens:
        texts = texts_of_tokens(parts)
        newline, spaces = _spelling_of_spaces(parts)
        ends, only = (np.zeros(max(texts) + 1, dtype=np.bool_) for _ in range(2))
        for i, text in texts.items():
            if newline in text or "\n" in text:
                ends[i] = text.endswith((newline, "\n"))
                only[i] = not text.strip(spaces)
            # <0x0A>: a byte that the vocabulary has no entry for
            elif (byte := BYTE_TOKEN.fullmatch(text)) and byte[1] == "0A":
                ends[i] = only[i] = True
        return cls(ends, only)


def _spelling_of_spaces(parts: dict[str, Any]) -> tuple[str, str]:
    """How the vocabulary writes a newline, and all the letters that it writes for white space."""
    plain = " \t\n\r\x0b\x0c"
    if not is_byte_level(parts):
        return "\n", plain + "▁"
    written = {byte: letter for letter, byte in byte_alphabet().items()}
    return written[10], plain + "".join(written[ord(space)] for space in plain)
