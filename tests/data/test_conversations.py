from __future__ import annotations

from pathlib import Path

import pytest

from clusterlm.data.cache import IGNORE_INDEX, Cache
from clusterlm.errors import DataError
from tests.data.corpus import (
    chat_source,
    data_of,
    decoded,
    prepare,
    sentence,
    text_source,
    write_chats,
    write_rows,
    write_texts,
)


def _trained_texts(cache: Cache) -> list[str]:
    """Runs of trained tokens in the blocks, as text."""
    runs = []
    for sample in cache.split("train"):
        run: list[int] = []
        for label in [*sample["labels"].tolist(), IGNORE_INDEX]:
            if label != IGNORE_INDEX:
                run.append(label)
            elif run:
                runs.append(decoded(cache, run))
                run = []
    return runs


def test_what_is_trained_of_a_conversation_is_what_the_assistant_says(tmp_path: Path) -> None:
    rows = [
        [
            {"role": "system", "content": f"be {i}"},
            {"role": "user", "content": sentence(i, 3)},
            {"role": "assistant", "content": f"Привет {i}\nand {sentence(i, 5)}"},
            {"role": "user", "content": "more"},
            {"role": "assistant", "content": f"no {i}"},
        ]
        for i in range(20)
    ]
    path = write_rows(tmp_path / "c.jsonl", ({"messages": row} for row in rows))
    cache = prepare(data_of(chat_source(path), block_size=512))
    said = [m["content"] + "<|im_end|>" for row in rows for m in row if m["role"] == "assistant"]
    assert sorted(_trained_texts(cache)) == sorted(said)
    counts = cache.manifest["splits"]["train"]
    trained = sum(int((s["labels"] != IGNORE_INDEX).sum()) for s in cache.split("train"))
    assert counts["supervised_tokens"] == trained == cache.manifest["counts"]["supervised_tokens"]
    assert cache.manifest["stop_ids"] == [0, 3]


def test_an_instruction_trains_its_answer(tmp_path: Path) -> None:
    rows = [{"ask": f"q{i}", "reply": f"r{i}", "sys": "be" if i % 2 else ""} for i in range(10)]
    path = write_rows(tmp_path / "i.jsonl", rows)
    mapping = {"instruction": "ask", "output": "reply", "system": "sys"}
    source = {"kind": "instruct", "path": str(path), "mapping": mapping}
    cache = prepare(data_of(source, block_size=64))
    assert sorted(_trained_texts(cache)) == [f"r{i}<|im_end|>" for i in range(10)]


def test_an_answer_without_an_end_gets_one_at_the_end(tmp_path: Path) -> None:
    template = tmp_path / "alpaca.jinja"
    template.write_text(
        "{% for m in messages %}{{ ('### Q: ' if m.role == 'user' else '### A: ') + m.content }}\n"
        "{% endfor %}"
    )
    rows = [{"prompt": f"q{i}", "response": f"r{i}."} for i in range(10)]
    source = {"kind": "instruct", "path": str(write_rows(tmp_path / "i.jsonl", rows))}
    tokenizer = {"train": {"vocab_size": 300}, "chat_template": str(template)}
    cache = prepare(data_of(source, tokenizer=tokenizer, block_size=64))
    # between the answer and its end stands the newline of the template, which is not trained
    ends = [text for text in _trained_texts(cache) if text == "<|endoftext|>"]
    assert len(ends) == 10


@pytest.mark.parametrize("overlong", ["drop", "truncate", "error"])
def test_a_conversation_longer_than_a_block(tmp_path: Path, overlong: str) -> None:
    short = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    long = [{"role": "user", "content": "a"}, {"role": "assistant", "content": sentence(1, 90)}]
    path = write_rows(tmp_path / "c.jsonl", [{"messages": short}, {"messages": long}])
    data = data_of(chat_source(path), overlong=overlong, block_size=48)
    if overlong == "error":
        with pytest.raises(DataError, match=r"c\.jsonl:2: a conversation of \d+ tokens is longer"):
            prepare(data)
        return
    split = prepare(data).manifest["splits"]["train"]
    assert split["documents"] == (1 if overlong == "drop" else 2)
    assert split["dropped"] == {"overlong" if overlong == "drop" else "truncated": 1}


def test_conversations_of_which_nothing_is_trained_are_an_error(tmp_path: Path) -> None:
    rows = ({"messages": [{"role": "user", "content": f"q{i}"}]} for i in range(5))
    source = chat_source(write_rows(tmp_path / "c.jsonl", rows))
    texts = text_source(write_texts(tmp_path / "a.jsonl", 40))
    for data in (data_of(source), data_of(texts, source)):
        with pytest.raises(DataError, match=r"no conversation is left .*\(5 without an answer"):
            prepare(data)


def test_texts_and_conversations_train_together(tmp_path: Path) -> None:
    chats = chat_source(write_chats(tmp_path / "c.jsonl", 13))
    texts = text_source(write_texts(tmp_path / "a.jsonl", 40))
    cache = prepare(data_of(chats, texts, block_size=128, validation={"fraction": 0.2}))
    sizes = [(about["files"], about["num_tokens"]) for about in cache.manifest["shards"]]
    # one bit a token, and only where there are conversations
    assert [files.get("trained.bin") for files, _ in sizes] == [-(-sizes[0][1] // 8), None]
    said = [text for text in _trained_texts(cache) if text.endswith("<|im_end|>")]
    assert all(text.startswith(("answer", "then")) for text in said)
    assert said
