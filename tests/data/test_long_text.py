from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from clusterlm.data.tokens import long_text
from clusterlm.data.tokens.cut_rules import cut_rule, cut_rule_of
from clusterlm.data.tokens.engines import open_engine
from clusterlm.data.tokens.long_text import Cutter, check_cuts
from tests.data.styles import (
    BYTE_LEVEL,
    STYLES,
    TEXTS,
    encoded,
    tokenizer_text,
    with_added,
    write_style,
)

ALL = Cutter(spaces=True, newlines=True, commas=True)
NASTY = st.lists(
    st.sampled_from(
        [*"abZ12 \n\t./,'-_(é界中Яй。，、한א²▁🙂\r\x85\xa0\u2003\u2028\u3000\u0301\u4dc0\ufeff\x00"]
        + [
            "  ",
            "\n\n",
            "\r\n",
            "'s",
            "the ",
            " on",
            "а б",
            "a b",
            "a\nb",
            ".\nЯ",
            "中。中",
            "大，",
        ]
        + ["<|end|>", "<s>", "</s>", "TOK", "e\u0301", " \u0301a"]
    ),
    max_size=60,
).map("".join)


@given(NASTY, st.integers(0, 200), st.integers(0, 200))
def test_cuts_never_fall_and_never_part_a_character(text: str, one: int, other: int) -> None:
    data = text.encode()
    low, high = sorted((min(one, len(data)), min(other, len(data))))
    assert low <= ALL.next_cut(data, low) <= ALL.next_cut(data, high) <= len(data)
    data[: ALL.next_cut(data, low)].decode()


@settings(deadline=None)
@given(NASTY, st.integers(1, 40), st.booleans())
def test_the_pieces_are_the_whole_and_those_of_its_byte_ranges(
    text: str, piece: int, drops_space: bool
) -> None:
    data = text.encode()
    cutter = Cutter(spaces=True, newlines=not drops_space, drops_space=drops_space)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_text, "PIECE_BYTES", piece)
        patch.setattr(long_text, "_STRETCH_BYTES", 16)
        pieces = list(cutter.cut_text(data))
        assert (b" " if drops_space else b"").join(pieces) == data
        # as two workers see it, who know nothing of each other
        bounds = [cutter.next_cut(data, k) for k in range(piece, len(data), piece)]
        ranges = [
            data[a:b] for a, b in zip([0, *bounds], [*bounds, len(data)], strict=True) if a < b
        ]
        patch.setattr(long_text, "PIECE_BYTES", 10_000)
        read = [p for i, r in enumerate(ranges) for p in cutter.cut_text(r, is_start=i == 0)]
        assert read == pieces


def _cuts_change_ids(text: str, tokenizer: Tokenizer, cutter: Cutter, piece: int) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_text, "_STRETCH_BYTES", 16)
        pieces = [p.decode() for p in cutter.cut_text(text.encode(), piece_bytes=piece)]
    return encoded(tokenizer, pieces) != encoded(tokenizer, [text])


@pytest.mark.parametrize("style", STYLES)
def test_no_cut_of_a_known_tokenizer_changes_an_id(style: str) -> None:
    text = tokenizer_text(style)
    tokenizer, rule = Tokenizer.from_str(text), cut_rule_of(json.loads(text))
    assert rule is not None
    assert rule.newlines == (style in {*BYTE_LEVEL, "gemma"} - {"roberta"})
    assert rule.drops_space == (style == "llama2")
    rules = [Cutter(spaces=True, drops_space=rule.drops_space)]
    rules += [Cutter(newlines=True)] if rule.newlines else []
    rules += [Cutter(commas=True)] if rule.commas else []

    @settings(deadline=None, max_examples=60)
    @given(NASTY, st.integers(1, 30))
    def holds(nasty: str, piece: int) -> None:
        for some in (rule, *rules):
            assert not _cuts_change_ids(nasty, tokenizer, some, piece)

    holds()
    for real in TEXTS:
        for some in (rule, *rules):
            assert not _cuts_change_ids(real * 3, tokenizer, some, 1)


@pytest.mark.parametrize(
    "style", ["gpt2", "roberta", "llama3", "qwen2", "llama2", "mistral", "gemma"]
)
def test_an_added_token_that_a_cut_would_meet_spoils_the_rule(style: str) -> None:
    contents = [
        "a b",
        "TOK",
        "b",
        "a\nb",
        "\nb",
        "a\n",
        " b",
        "a ",
        "中。",
        "  ",
        "<x>",
        "a▁b",
        "é",
    ]

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(
            st.fixed_dictionaries(
                {
                    "content": st.sampled_from(contents),
                    "lstrip": st.booleans(),
                    "rstrip": st.booleans(),
                    "normalized": st.booleans(),
                    "special": st.booleans(),
                }
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda token: token["content"],
        ),
        NASTY,
        st.integers(1, 20),
    )
    def holds(added: list[dict[str, Any]], nasty: str, piece: int) -> None:
        text = with_added(tokenizer_text(style), added)
        rule = cut_rule_of(json.loads(text))
        nasty = f"{nasty}a b a\nb TOK b 中。a {nasty}"
        assert rule is None or not _cuts_change_ids(nasty, Tokenizer.from_str(text), rule, piece)

    holds()


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFKC"}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}},
        {"model": {"type": "Unigram", "vocab": []}},
        {"model": {"type": "BPE", "dropout": 0.1, "vocab": {}}},
    ],
    ids=str,
)
def test_an_unknown_tokenizer_is_never_cut(change: dict[str, Any]) -> None:
    assert cut_rule_of(json.loads(tokenizer_text("gpt2")) | change) is None


def test_a_pattern_with_anything_unknown_in_it_is_never_cut() -> None:
    text = tokenizer_text("llama3")
    assert cut_rule_of(json.loads(text.replace(r"\\p{N}{1,3}", r"\\p{N}{1,4}"))) is None
    assert cut_rule_of(json.loads(text.replace(r'|\\s+"', r'|\\s+$"'))) is None


@pytest.mark.parametrize("style", ["llama2", "mistral", "gemma"])
def test_a_vocabulary_with_a_space_inside_an_entry_is_never_cut_there(style: str) -> None:
    parts = json.loads(tokenizer_text(style))
    parts["model"]["vocab"]["a▁b"] = len(parts["model"]["vocab"])
    rule = cut_rule_of(parts)
    assert rule == (Cutter(newlines=True) if style == "gemma" else None)


def test_a_text_is_cut_at_about_every_piece_wherever_it_has_places() -> None:
    for text in TEXTS[:4]:
        data = (text * (1 + 200_000 // len(text.encode()))).encode()
        sizes = [len(piece) for piece in ALL.cut_text(data)]
        assert max(sizes) < long_text.PIECE_BYTES + 500
        assert len(sizes) > 8
    assert len(list(ALL.cut_text(b"x" * 100_000))) == 1
    assert list(ALL.cut_text(b"")) == []


def test_the_users_own_texts_are_looked_at(tmp_path: Path) -> None:
    path = write_style(tmp_path, "llama3")
    engine, rule = open_engine("tokenizers", path), cut_rule(path)
    assert rule is not None
    assert check_cuts(rule, engine, [text * 9 for text in TEXTS])
    # Llama-2 needs its space dropped, and nobody told
    wrong = open_engine("tokenizers", write_style(tmp_path / "other", "llama2"))
    assert not check_cuts(Cutter(spaces=True), wrong, [TEXTS[1] * 9])
