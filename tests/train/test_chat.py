"""The chat loop without a terminal, and what of a conversation the model is shown."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clusterlm.errors import TrainError
from clusterlm.train.answer import Answerer
from clusterlm.train.chat import PLAIN, Chat
from clusterlm.train.history import History
from clusterlm.train.loaded import Loaded, load_target
from clusterlm.train.sampling import Sampling
from clusterlm.train.target import find_target
from clusterlm.train.terminal import visible
from tests.train.launching import TINY

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRICT = (
    "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}"
    "{{ raise_exception('no such role') }}{% endif %}[{{ m.content }}]{% endfor %}"
)
CONTEXT = 256
SHORT = Sampling(max_new_tokens=4, greedy=True)


@pytest.fixture
def loaded(tokenizer: Any) -> Loaded:
    from transformers import LlamaConfig, LlamaForCausalLM

    own = copy.deepcopy(tokenizer)
    own.chat_template = CHATML
    config = LlamaConfig(vocab_size=420, max_position_embeddings=CONTEXT, **TINY["config"])
    return Loaded(LlamaForCausalLM(config).eval(), own)


def talk(loaded: Loaded, *lines: str, **history: Any) -> tuple[Chat, str]:
    shown: list[str] = []
    chat = Chat(Answerer(loaded, SHORT), History(**history), shown.append)
    given: Iterator[str] = iter(lines)

    def read_line() -> str:
        try:
            return next(given)
        except StopIteration:
            raise EOFError from None

    chat.run(read_line)
    return chat, "".join(shown)


def test_an_answer_follows_and_is_remembered(loaded: Loaded) -> None:
    chat, _ = talk(loaded, "hello", "", "   ", "again", "/quit", "never read")
    assert [m["role"] for m in chat.history.messages] == ["user", "assistant"] * 2
    assert chat.history.messages[2]["content"] == "again"


def test_commands(loaded: Loaded, tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    chat, shown = talk(
        loaded, "/system be brief", "hello", f"/save {file}", "/history", "/reset", "/histroy"
    )
    saved = json.loads(file.read_text())["messages"]
    assert [message["role"] for message in saved] == ["system", "user", "assistant"]
    assert "system: be brief\nuser: hello\n" in shown
    assert "did you mean `/history`?" in shown
    assert chat.history.shown() == [{"role": "system", "content": "be brief"}]
    assert talk(loaded, "/history")[1] == "nothing was said yet\n\n"


def test_the_history_has_a_limit_and_keeps_the_system_prompt() -> None:
    history = History(limit=2, system="s")
    for number in range(5):
        history.add("user", f"q{number}")
        history.add("function_response", f"f{number}")
        history.add("assistant", f"a{number}")
    contents = [message["content"] for message in history.shown()]
    assert contents == ["s", "q3", "f3", "a3", "q4", "f4", "a4"]
    history.add("user", "q5")
    assert [m["content"] for m in history.fitting(lambda some: len(some), room=2)] == ["s", "q5"]
    # the last turn is never left out, even if it does not fit
    assert len(history.fitting(lambda some: 1000, room=2)) == 2


def test_a_long_conversation_is_cut_to_the_context(loaded: Loaded) -> None:
    lines = [f"number {k} of some long lines" for k in range(9)]
    chat, shown = talk(loaded, *lines, limit=0)
    assert len(chat.history.messages) == 18
    assert "at once" not in shown
    chat.history.add("user", "and now?")
    ids = chat.answerer.encode_history(chat.history)
    assert ids.shape[1] <= chat.answerer.room < CONTEXT


def test_what_is_too_long_is_refused_and_forgotten(loaded: Loaded) -> None:
    chat, shown = talk(loaded, "word " * 300, "hi")
    assert "the model sees 256 at once; say less" in shown
    assert [m["content"] for m in chat.history.messages[:1]] == ["hi"]


def test_function_responses_where_the_template_shows_them(loaded: Loaded) -> None:
    chat, shown = talk(loaded, "/function_response 5", "two plus three", "/function_response 5")
    assert "nothing was asked yet" in shown
    assert [m["role"] for m in chat.history.messages][2:] == ["function_response", "assistant"]
    loaded.tokenizer.chat_template = STRICT
    chat, shown = talk(loaded, "hello", "/function_response 5", "/system x")
    assert "no role for what a function gives" in shown
    assert "refuses system, user: no such role" in shown
    assert chat.history.system is None
    assert len(chat.history.messages) == 2


def test_without_a_template_lines_are_continued(loaded: Loaded) -> None:
    loaded.tokenizer.chat_template = None
    chat, shown = talk(loaded, "import json", "/system x")
    assert shown.startswith(PLAIN)
    assert "has no system prompt" in shown
    assert chat.history.messages == []


def test_ctrl_c_ends_the_answer_and_not_the_chat(loaded: Loaded) -> None:
    answerer = Answerer(loaded, Sampling(max_new_tokens=40, greedy=True))
    shown: list[str] = []

    def write(piece: str) -> None:
        shown.append(piece)
        if len(shown) == 2:
            raise KeyboardInterrupt

    chat = Chat(answerer, History(), write)
    chat.say("user", "hello")
    assert [m["role"] for m in chat.history.messages] == ["user", "assistant"]
    assert shown[-2:] == [" ...", "\n"]
    assert chat.answerer.loaded.model is loaded.model
    assert chat.say("user", "and on") is not None


def test_an_answer_ends_where_the_template_ends_a_turn(loaded: Loaded) -> None:
    loaded.tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    end = loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")
    ends = Answerer(loaded, SHORT)._ends()["eos_token_id"]
    assert end in ends
    assert loaded.tokenizer.eos_token_id in ends


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"temperature": -1}, "--temperature -1: 0"),
        ({"top_p": 0}, "--top-p 0: above 0"),
        ({"top_k": -1, "max_new_tokens": 0}, "--max-new-tokens 0: 1 or more\n  --top-k -1"),
    ],
)
def test_sampling_without_a_meaning_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(TrainError, match=said):
        Sampling(**values)


def test_a_failure_of_the_model_is_an_error_and_no_wait(loaded: Loaded) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    loaded.model.forward = fail
    _, shown = talk(loaded, "hello")
    assert "the model failed while it answered: out of memory" in shown


def test_what_is_no_text_does_not_end_the_chat(loaded: Loaded, tmp_path: Path) -> None:
    lines = ["caf\udce9", "/system caf\udce9", "a\x00b\x1b[2J", "/save a\x00b", "/save ~nobody1/x"]
    chat, shown = talk(loaded, *lines, f"/save {tmp_path}", "/\udce9\x1b[2J", "hi")
    said = [m["content"] for m in chat.history.messages if m["role"] == "user"]
    assert said == ["caf\ufffd", "a\x00b\x1b[2J", "hi"]
    assert "null byte" in shown
    assert "Is a directory" in shown
    assert chat.history.system == "caf\ufffd"


def test_a_terminal_obeys_nothing_that_a_model_says() -> None:
    assert visible("a\x1b[2J\x9b2J\r\x07\x7f\tb\né\u200d") == "a␛[2J\ufffd2J␍␇␡\tb\né\u200d"


def test_a_tokenizer_that_cannot_show_an_answer_is_an_error_and_no_wait(loaded: Loaded) -> None:
    def broken(*_: Any, **__: Any) -> str:
        raise IndexError("no such id")

    loaded.tokenizer.decode = broken
    with pytest.raises(TrainError, match="no such id"):
        list(Answerer(loaded, SHORT).answer(torch.tensor([[1, 2]])))


def test_what_cannot_be_loaded_is_said(tiny_model: Path) -> None:
    target = find_target(str(tiny_model))
    with pytest.raises(TrainError, match="--load-in 4bit needs an NVIDIA GPU"):
        load_target(target, load_in="4bit")
    with pytest.raises(TrainError, match="--dtype int3: auto, float32"):
        load_target(target, dtype="int3")
    with pytest.raises(TrainError, match="cannot be loaded"):
        load_target(target)
