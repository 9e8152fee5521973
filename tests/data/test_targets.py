"""What of a conversation is trained: roles, weights, turns, and the tokens they become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from clusterlm.data.chat import Rendered, Span
from clusterlm.data.targets import Target, Targets, is_coded, weight_table
from clusterlm.data.tokenizer import read_vocabulary
from clusterlm.data.tokens.token_masks import TokenMasks
from clusterlm.spec.sources import ChatSource

TEXT = "<u>вопрос</u><a>ответ</a><u>again</u><a>yes</a>"
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "вопрос"},
    {"role": "assistant", "content": "ответ"},
    {"role": "user", "content": "again"},
    {"role": "assistant", "content": "yes"},
]


def _rendered() -> Rendered:
    words = ["вопрос</u>", "ответ</a>", "again</u>", "yes</a>"]
    starts = [TEXT.index(word) for word in words]
    spans = [
        Span(start, start + len(word), i)
        for i, (start, word) in enumerate(zip(starts, words, strict=True))
    ]
    return Rendered(TEXT, spans)


def _source(**options: Any) -> ChatSource:
    return ChatSource.model_validate({"kind": "chat", "path": "x.jsonl", **options})


def _words(targets: list[Target]) -> list[str]:
    raw = TEXT.encode()
    return [raw[target.start : target.end].decode() for target in targets]


def test_the_answers_are_trained_by_default() -> None:
    assert _words(Targets(_source()).of(_rendered(), MESSAGES)) == ["ответ</a>", "yes</a>"]


def test_the_last_answer_alone_may_be_trained() -> None:
    targets = Targets(_source(train_turns="last")).of(_rendered(), MESSAGES)
    assert _words(targets) == ["yes</a>"]


def test_everything_may_be_trained() -> None:
    targets = Targets(_source(only_target_loss=False)).of(_rendered(), MESSAGES)
    assert _words(targets) == [TEXT]


def test_a_turn_of_weight_zero_is_not_trained() -> None:
    messages = [MESSAGES[0], {**MESSAGES[1], "weight": 0}, *MESSAGES[2:]]
    assert _words(Targets(_source()).of(_rendered(), messages)) == ["yes</a>"]


def test_roles_have_the_weights_they_are_given_and_the_others_their_own() -> None:
    source = _source(role_weights={"user": 0.25})
    targets = Targets(source).of(_rendered(), MESSAGES)
    table = weight_table(source)
    assert [table[target.code] for target in targets] == [0.25, 1.0, 0.25, 1.0]
    assert is_coded(source)
    assert not is_coded(_source(role_weights={"user": 1.0}))
    assert not is_coded(_source())


def _byte_level(folder: Path, *, nfc: bool = False) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<u>", "</u>", "<a>", "</a>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT, "the quick brown fox", "быстрая лиса"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def _reference(tokenizer: Tokenizer, text: str, spans: list[tuple[int, int]]) -> list[bool]:
    """Token by token, from the library's own offsets (characters)."""
    return [
        any(begin <= start < end for begin, end in spans)
        for start, _ in tokenizer.encode(text, add_special_tokens=False).offsets
    ]


WORDS = st.text(
    alphabet=st.one_of(
        st.sampled_from(list("abc лис\n\t.,\u0301é日本🙂")),
        st.characters(codec="utf-8", exclude_categories=("Cs",)),
    ),
    max_size=12,
)


@pytest.mark.parametrize("nfc", [False, True])
def test_bytes_give_the_tokens_that_offsets_give(
    tmp_path_factory: pytest.TempPathFactory, nfc: bool
) -> None:
    path = _byte_level(tmp_path_factory.mktemp("tok"), nfc=nfc)
    (path.parent / "tokenizer_config.json").write_text('{"eos_token": "</a>"}')
    vocabulary = read_vocabulary(path.parent)
    tokenizer = vocabulary.encoder
    fast, slow = TokenMasks(path, vocabulary), TokenMasks(path, vocabulary)
    assert fast._offsets is not None
    slow.__dict__["_offsets"] = None

    @settings(deadline=None, max_examples=150)
    @given(
        st.lists(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3), min_size=1, max_size=3)
    )
    def same(conversations: list[list[tuple[str, str]]]) -> None:
        texts, targets, spans = [], [], []
        for turns in conversations:
            text, own = "", []
            for question, answer in turns:
                text += f"<u>{question}</u><a>"
                own.append((len(text), len(text) + len(answer) + 4))
                text += f"{answer}</a>"
            texts.append(text)
            spans.append(own)
            targets.append(
                [Target(len(text[:a].encode()), len(text[:b].encode()), 1) for a, b in own]
            )
        rows = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        ids = np.array([i for row in rows for i in row], dtype=np.uint32)
        ends = np.cumsum([len(row) for row in rows])
        wanted = [
            trained
            for text, own in zip(texts, spans, strict=True)
            for trained in _reference(tokenizer, text, own)
        ]
        assert (slow.codes(texts, targets, ids, ends) > 0).tolist() == wanted
        assert (fast.codes(texts, targets, ids, ends) > 0).tolist() == wanted

    same()
