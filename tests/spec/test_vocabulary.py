"""Which pairs of sizes a job allows: the table of Chinese-LLaMA-Alpaca, and what it leaves open."""

from __future__ import annotations

import pytest

from clusterlm.spec.model import Vocab
from clusterlm.spec.vocabulary import misfit, rows_of

# what its scripts accept: (rows of the model, entries of the tokenizer), and what becomes of them
CHINESE_LLAMA = {
    (32000, 32000): "keep",  # go on with LLaMA
    (32000, 49953): "resize",  # make Chinese LLaMA
    (49953, 49953): "keep",  # go on with Chinese LLaMA
    (49954, 49954): "keep",  # go on with Chinese Alpaca
}
OTHERS = [(32000, 49954), (49953, 49954), (49953, 32000), (32001, 32000), (32000, 32001)]


@pytest.mark.parametrize(("pair", "mode"), CHINESE_LLAMA.items())
def test_each_line_of_the_table_is_a_job(pair: tuple[int, int], mode: str) -> None:
    vocab = Vocab.model_validate({"mode": mode, "expect": list(pair)})
    for found in [*CHINESE_LLAMA, *OTHERS]:
        assert (misfit(vocab, *found) is None) == (found == pair)


def test_strict_takes_the_lines_without_a_resize_and_no_other() -> None:
    strict = Vocab.model_validate({"mode": "strict"})
    taken = {pair for pair in [*CHINESE_LLAMA, *OTHERS] if misfit(strict, *pair) is None}
    assert taken == {pair for pair, mode in CHINESE_LLAMA.items() if mode == "keep"}


def test_keep_wants_a_row_for_each_entry_and_resize_takes_every_pair() -> None:
    keep, resize = (Vocab.model_validate({"mode": mode}) for mode in ("keep", "resize"))
    for rows, entries in [*CHINESE_LLAMA, *OTHERS]:
        assert (misfit(keep, rows, entries) is None) == (rows >= entries)
        assert misfit(resize, rows, entries) is None


def test_a_refusal_says_both_sizes_and_what_is_possible() -> None:
    told = misfit(Vocab.model_validate({}), 32000, 49953) or ""
    assert "32,000 rows" in told
    assert "49,953 entries" in told
    assert "mode: resize (17,953 new rows" in told
    assert "expect: [32000, 49953]" in told
    less = misfit(Vocab.model_validate({"mode": "strict"}), 49953, 32000) or ""
    assert "never cut down" in less


def test_rows_are_those_of_the_text_part() -> None:
    assert rows_of({"vocab_size": 5}) == 5
    assert rows_of({"vocab_size": 5, "text_config": {"vocab_size": 7}}) == 7
    assert rows_of({"text_config": {"hidden_size": 7}, "vocab_size": 6}) == 6
    assert rows_of({"hidden_size": 5}) is None
