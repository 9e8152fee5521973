from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from clusterlm.data.tokens.engines import FAST, is_installed, open_engine
from clusterlm.data.tokens.extend import _count_words, extend_tokenizer
from clusterlm.errors import DataError
from clusterlm.spec.data import ExtendTokenizer
from tests.data.styles import BYTE_LEVEL, TEXTS, tokenizer_text, write_style

CORPUS = [
    "Мороз и солнце; день чудесный! Ещё ты дремлешь, друг прелестный. Мороз и солнце.\n" * 3,
    "погода была хорошая, погоду обещали хорошую <|end|> погодой довольны\n" * 4,
    "Wherever the whether of the weather, whatever the weather, we weather the weather. é e\u0301",
]


def _extended(folder: Path, style: str, spec: ExtendTokenizer) -> tuple[Tokenizer, Tokenizer]:
    """Before and after."""
    path = write_style(folder, style)
    before = Tokenizer.from_file(str(path))
    extend_tokenizer(folder, spec, [CORPUS[:1], CORPUS[1:]])
    return before, Tokenizer.from_file(str(path))


@pytest.mark.parametrize("style", BYTE_LEVEL)
def test_old_ids_stay_and_texts_take_fewer_tokens(tmp_path: Path, style: str) -> None:
    spec = ExtendTokenizer(tokens=["слово", "zzz"], special_tokens=["<|tool|>"], learn=40)
    before, after = _extended(tmp_path, style, spec)
    old, new = before.get_vocab(), after.get_vocab()
    assert {entry: new[entry] for entry in old} == old
    added = {entry: i for entry, i in new.items() if entry not in old}
    # special tokens, words, then what was learned; no number is left out
    assert sorted(added.values()) == list(range(len(old), len(old) + len(added)))
    assert [added["<|tool|>"], added["слово"], added["zzz"]] == [
        len(old),
        len(old) + 1,
        len(old) + 2,
    ]
    assert len(added) == 43
    assert after.get_added_tokens_decoder()[added["<|tool|>"]].special
    assert not after.get_added_tokens_decoder()[added["слово"]].special
    for text in [*CORPUS, *TEXTS]:
        assert _decoded(after, text) == _decoded(before, text)
        assert len(after.encode(text).ids) <= len(before.encode(text).ids)
    sizes = [sum(len(t.encode(text).ids) for text in CORPUS) for t in (before, after)]
    assert sizes[1] < 0.85 * sizes[0]
    assert added["слово"] in after.encode("одно слово").ids
    assert after.encode("<|tool|>zzz").ids[-2:] == [added["<|tool|>"], added["zzz"]]


def _decoded(tokenizer: Tokenizer, text: str) -> str:
    return str(tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False))


@settings(deadline=None, max_examples=40)
@given(text=st.text(alphabet="погдау мрз\n.<|end>", max_size=200))
def test_what_was_never_seen_decodes_to_itself(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "once"
    if not folder.is_dir():
        _extended(folder, "llama3", ExtendTokenizer(learn=60))
    after = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert _decoded(after, text) == text


def test_learning_merges_the_most_frequent_pair_first(tmp_path: Path) -> None:
    """Against a slow reference that counts everything anew before each merge."""
    before, after = _extended(tmp_path, "gpt2", ExtendTokenizer(learn=60, min_frequency=3))
    words = _count_words(json.loads(tokenizer_text("gpt2")), [CORPUS])
    spelling = {i: entry for entry, i in before.get_vocab().items()}
    expected: list[list[str]] = []
    ruled_out: set[tuple[int, int]] = set()
    while len(expected) < 60:
        pairs: Counter[tuple[int, int]] = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:], strict=False):
                pairs[pair] += count
        able = {pair: n for pair, n in pairs.items() if n >= 3 and pair not in ruled_out}
        if not able:
            break
        best = min(able, key=lambda pair: (-able[pair], pair))
        entry = spelling[best[0]] + spelling[best[1]]
        if entry in spelling.values():
            ruled_out.add(best)
            continue
        number = len(spelling)
        spelling[number] = entry
        expected.append([spelling[best[0]], spelling[best[1]]])
        words = _merged(words, best, number)
    old = json.loads(tokenizer_text("gpt2"))["model"]["merges"]
    found = json.loads(after.to_str())["model"]["merges"]
    assert found[: len(old)] == old
    assert found[len(old) :] == expected
    # and the library merges as was counted
    for word, _ in words.items():
        text = "".join(spelling[i] for i in word)
        assert tuple(token.id for token in after.model.tokenize(text)) == word


def _merged(words: Any, pair: tuple[int, int], number: int) -> Counter[tuple[int, ...]]:
    out: Counter[tuple[int, ...]] = Counter()
    for word, count in words.items():
        new: list[int] = []
        for token in word:
            # leftmost first: what was merged is no left side any more
            if new and (new[-1], token) == pair:
                new[-1] = number
            else:
                new.append(token)
        out[tuple(new)] += count
    return out


def test_the_same_texts_in_any_order_give_the_same_file(tmp_path: Path) -> None:
    spec = ExtendTokenizer(learn=50)
    files = []
    for number, order in enumerate([CORPUS, CORPUS[::-1]]):
        path = write_style(tmp_path / str(number), "o200k")
        extend_tokenizer(path.parent, spec, [order])
        files.append(path.read_bytes())
    assert files[0] == files[1]


def test_nothing_rare_is_learned(tmp_path: Path) -> None:
    before, after = _extended(tmp_path, "gpt2", ExtendTokenizer(learn=1000, min_frequency=1000))
    assert after.get_vocab() == before.get_vocab()


def test_merges_are_written_in_the_form_of_the_file(tmp_path: Path) -> None:
    path = write_style(tmp_path, "gpt2")
    parts = json.loads(path.read_text())
    parts["model"]["merges"] = [" ".join(pair) for pair in parts["model"]["merges"]]
    path.write_text(json.dumps(parts))
    extend_tokenizer(tmp_path, ExtendTokenizer(learn=5), [CORPUS])
    merges = json.loads(path.read_text())["model"]["merges"]
    assert all(isinstance(merge, str) and merge.count(" ") == 1 for merge in merges)
    Tokenizer.from_file(str(path))


@pytest.mark.parametrize("style", ["llama2", "mistral", "metaspace", "gemma"])
def test_other_kinds_take_words_and_cannot_learn(tmp_path: Path, style: str) -> None:
    spec = ExtendTokenizer(tokens=["слово", "größe"], special_tokens=["<|tool|>"])
    before, after = _extended(tmp_path, style, spec)
    old, new = before.get_vocab(), after.get_vocab()
    assert {entry: new[entry] for entry in old} == old
    assert len(new) == len(old) + 3
    assert after.encode("größe<|tool|>").ids[-1] == new["<|tool|>"]
    with pytest.raises(DataError, match="only byte-level BPE tokenizers"):
        extend_tokenizer(tmp_path, ExtendTokenizer(learn=1))


def test_what_is_there_already_is_not_added_again(tmp_path: Path) -> None:
    spec = ExtendTokenizer(tokens=["in", "слово", "слово"], special_tokens=["<|end|>"])
    before, after = _extended(tmp_path, "gpt2", spec)
    assert before.token_to_id("in") == after.token_to_id("in") is not None
    assert after.get_vocab_size() == before.get_vocab_size() + 1
    extend_tokenizer(tmp_path, spec)
    again = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert again.get_vocab() == after.get_vocab()


def test_a_word_that_would_decode_to_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'größe' cannot be added to a byte-level tokenizer"):
        _extended(tmp_path, "gpt2", ExtendTokenizer(tokens=["größe"]))


def test_files_that_tell_the_old_vocabulary_are_gone(tmp_path: Path) -> None:
    write_style(tmp_path, "gpt2")
    for name in ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"):
        (tmp_path / name).write_text("{}")
    config = {"eos_token": "<|end|>", "added_tokens_decoder": {"0": {"content": "<|end|>"}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    extend_tokenizer(tmp_path, ExtendTokenizer(special_tokens=["<|tool|>"]))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    decoder = json.loads((tmp_path / names[2]).read_text())["added_tokens_decoder"]
    assert [entry["content"] for entry in decoder.values()] == ["<|end|>", "<|tool|>"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_transformers_reads_the_extended_tokenizer_the_same(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    write_style(tmp_path, "qwen2")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    spec = ExtendTokenizer(tokens=["слово"], special_tokens=["<|tool|>"], learn=20)
    extend_tokenizer(tmp_path, spec, [CORPUS])
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*CORPUS, "слово<|tool|> погода"]:
        ids = plain.encode(text, add_special_tokens=False).ids
        assert loaded(text, add_special_tokens=False)["input_ids"] == ids
    assert len(loaded) == plain.get_vocab_size()


@pytest.mark.skipif(not all(map(is_installed, FAST)), reason="needs the extra `fast`")
def test_the_fast_engines_read_the_extended_tokenizer_the_same(tmp_path: Path) -> None:
    path = write_style(tmp_path, "llama3")
    spec = ExtendTokenizer(tokens=["слово"], special_tokens=["<|tool|>"], learn=60)
    extend_tokenizer(tmp_path, spec, [CORPUS])
    right, right_ends = open_engine("tokenizers", path).encode([*CORPUS, *TEXTS])
    for name in FAST:
        ids, ends = open_engine(name, path).encode([*CORPUS, *TEXTS])
        assert np.array_equal(ids, right)
        assert np.array_equal(ends, right_ends)
