from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from clusterlm.data.tokens.token_bytes import (
    ByteOffsets,
    NewlineTokens,
    is_byte_level,
    read_tokenizer,
)
from clusterlm.errors import DataError
from tests.data.styles import BYTE_LEVEL, SENTENCEPIECE, TEXTS, tokenizer_text, with_added

ADDED = [
    {"content": "<|é|>", "special": True},
    {"content": "<|strip|>", "special": True, "lstrip": True, "rstrip": True},
]


@pytest.mark.parametrize("style", sorted({*BYTE_LEVEL} - {"roberta"}))
def test_places_follow_from_lengths(style: str) -> None:
    text = with_added(tokenizer_text(style), ADDED)
    tokenizer, offsets = Tokenizer.from_str(text), ByteOffsets.of_parts(json.loads(text))
    assert offsets is not None
    pieces = [
        *"ab é中🙂\n\t.1",
        "e\u0301",
        "<|end|>",
        "<|é|>",
        "<|strip|>",
        "the ",
        "\r\n",
        "\u212b",
    ]

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.sampled_from(pieces), max_size=30).map("".join))
    def holds(nasty: str) -> None:
        row = tokenizer.encode(nasty, add_special_tokens=False)
        ids = np.array(row.ids, dtype=np.uint32)
        starts = offsets.starts(ids, len(nasty.encode()))
        if not offsets.keeps(nasty):
            return
        if starts is None:
            # the white space beside it belongs to no token
            assert "<|strip|>" in nasty
            return
        # the library tells characters; a token inside a character begins where that begins
        begins = [len(nasty[:start].encode()) for start, _ in row.offsets]
        assert all(0 <= s - b < 4 for s, b in zip(starts.tolist(), begins, strict=True))
        ends = [*starts.tolist()[1:], len(nasty.encode())][: len(starts)]
        for i, (a, b) in enumerate(zip(starts.tolist(), ends, strict=True)):
            assert b - a == offsets.lengths[ids[i]] > 0

    holds()
    for real in TEXTS:
        ids = np.array(tokenizer.encode(real, add_special_tokens=False).ids)
        assert (offsets.starts(ids, len(real.encode())) is not None) or not offsets.keeps(real)


def test_lengths_are_those_of_the_decoded_tokens() -> None:
    text = with_added(tokenizer_text("gpt2"), ADDED)
    tokenizer, offsets = Tokenizer.from_str(text), ByteOffsets.of_parts(json.loads(text))
    assert offsets is not None
    assert len(offsets.lengths) == tokenizer.get_vocab_size()
    for i in range(len(offsets.lengths)):
        decoded = tokenizer.decode([i], skip_special_tokens=False)
        if "\ufffd" not in decoded:
            assert offsets.lengths[i] == len(decoded.encode())


def test_a_text_that_is_normalized_has_no_places() -> None:
    offsets = ByteOffsets.of_parts(json.loads(tokenizer_text("qwen2")))
    assert offsets is not None
    assert offsets.keeps("é 中")
    assert not offsets.keeps("e\u0301")
    plain = ByteOffsets.of_parts(json.loads(tokenizer_text("gpt2")))
    assert plain is not None
    assert plain.keeps("e\u0301")


@pytest.mark.parametrize("style", [*SENTENCEPIECE, "roberta"])
def test_a_tokenizer_that_adds_spaces_has_no_byte_lengths(style: str) -> None:
    assert ByteOffsets.of_parts(json.loads(tokenizer_text(style))) is None
    assert is_byte_level(json.loads(tokenizer_text(style))) == (style == "roberta")


def test_no_text_has_no_places() -> None:
    offsets = ByteOffsets.of_parts(json.loads(tokenizer_text("gpt2")))
    assert offsets is not None
    empty = np.zeros(0, dtype=np.uint32)
    found = offsets.starts(empty, 0)
    assert found is not None
    assert found.tolist() == []
    assert offsets.starts(empty, 1) is None


@pytest.mark.parametrize("style", [*BYTE_LEVEL, *SENTENCEPIECE])
def test_ends_of_lines_are_those_of_the_texts_of_the_tokens(style: str) -> None:
    added = [{"content": "<|nl|>\n"}, {"content": "\n \n"}, {"content": "\nx"}]
    text = with_added(tokenizer_text(style), added)
    tokenizer, newline = Tokenizer.from_str(text), NewlineTokens.of_parts(json.loads(text))
    assert len(newline.ends_with_newline) == len(newline.is_newline_only)
    last = tokenizer.get_vocab_size() - 1
    assert newline.ends_with_newline[last - 2 :].tolist() == [True, True, False]
    assert newline.is_newline_only[last - 2 :].tolist() == [False, True, False]
    for real in [*TEXTS, "a\n\n \nb\n c\r\n\r\n\td \n", "\n", "\n\n\n\nend"]:
        row = tokenizer.encode(real, add_special_tokens=False)
        for i, (start, end) in zip(row.ids, row.offsets, strict=True):
            part = real[start:end]
            # bytes of one character; a space that was put before the text
            if len(part.encode()) > len(part) == 1 or row.tokens[row.ids.index(i)] in "▁Ġ":
                continue
            assert newline.ends_with_newline[i] == part.endswith("\n"), part
            assert newline.is_newline_only[i] == ("\n" in part and not part.strip()), part


def test_what_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for text in ("", "[]", "{}", '{"model": {}}', "\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(DataError, match=r"tokenizer\.json: no readable tokenizer"):
            read_tokenizer(path)
