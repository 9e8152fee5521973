from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from clusterlm.data import long_text
from clusterlm.data.long_text import cut_text, next_cut
from tests.data.corpus import sentence

TEXTS = st.text(alphabet="ab1 \n\t.,/(界中Яй。é\u3000", max_size=400)


@given(TEXTS, st.integers(0, 500), st.integers(0, 500))
def test_cuts_never_fall_and_never_part_a_character(text: str, one: int, other: int) -> None:
    data = text.encode()
    low, high = sorted((min(one, len(data)), min(other, len(data))))
    assert low <= next_cut(data, low) <= next_cut(data, high) <= len(data)
    data[: next_cut(data, low)].decode()


@settings(deadline=None)
@given(TEXTS, st.integers(1, 40))
def test_the_pieces_are_the_whole_and_those_of_its_byte_ranges(text: str, piece: int) -> None:
    data = text.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_text, "PIECE_BYTES", piece)
        patch.setattr(long_text, "_STRETCH_BYTES", 16)
        pieces = list(cut_text(data))
        assert b"".join(pieces) == data
        # as two workers see it, who know nothing of each other
        bounds = [next_cut(data, k) for k in range(piece, len(data), piece)]
        ranges = [
            data[a:b] for a, b in zip([0, *bounds], [*bounds, len(data)], strict=True) if a < b
        ]
        assert ranges == pieces


def _bpe(pre_tokenizer: pre_tokenizers.PreTokenizer) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    corpus = [Path(__file__).read_text(), *(sentence(i) for i in range(200)), "привет мир. да\nнет"]
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize("style", ["gpt2", "llama3"])
def test_cutting_everywhere_changes_no_id(style: str) -> None:
    from tokenizers import Regex

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=style == "gpt2")
    split = pre_tokenizers.Split(Regex(LLAMA_3), "isolated")
    tokenizer = _bpe(
        byte_level if style == "gpt2" else pre_tokenizers.Sequence([split, byte_level])
    )
    text = (
        Path(long_text.__file__).read_text() * 3 + "Привет, мир. Это\nдлинный текст без конца " * 9
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_text, "PIECE_BYTES", 30)
        pieces = [piece.decode() for piece in cut_text(text.encode())]
    assert len(pieces) > 100
    assert [i for piece in pieces for i in tokenizer.encode(piece).ids] == tokenizer.encode(
        text
    ).ids
