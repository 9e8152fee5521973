from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clusterlm.data.chat import ChatTemplate
from clusterlm.data.chats.templates import BUILT_IN, template_text
from clusterlm.errors import DataError
from clusterlm.spec.chat_template import BUILT_IN_TEMPLATES as NAMES
from clusterlm.spec.data import Tokenizer
from tests.data.templates_seen import SPECIALS

SYSTEM = {"role": "system", "content": "Be kind."}
TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "4"},
]
VICUNA_PREFACE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives"
    " helpful, detailed, and polite answers to the user's questions."
)
ALPACA_PREFACE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes"
    " the request."
)

CHATML_TEXT = (
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
    "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
)
CHATML_SYSTEM = "<|im_start|>system\nBe kind.<|im_end|>\n"
LLAMA3_TEXT = "".join(
    f"<|start_header_id|>{turn['role']}<|end_header_id|>\n\n{turn['content']}<|eot_id|>"
    for turn in TURNS
)
LLAMA3_SYSTEM = "<|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
GEMMA_TEXT = (
    "Hi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
    "<start_of_turn>user\n2+2?<end_of_turn>\n<start_of_turn>model\n4<end_of_turn>\n"
)
VICUNA_TEXT = "USER: Hi ASSISTANT: Hello.</s>USER: 2+2? ASSISTANT: 4</s>"
ALPACA_TEXT = (
    "### Instruction:\nHi\n\n### Response:\nHello.</s>\n\n"
    "### Instruction:\n2+2?\n\n### Response:\n4</s>\n\n"
)

# without a system turn, with one, and what the model is given when it is to answer
FORMATS = {
    "chatml": (CHATML_TEXT, CHATML_SYSTEM + CHATML_TEXT, "<|im_start|>assistant\n"),
    "qwen": (CHATML_TEXT, CHATML_SYSTEM + CHATML_TEXT, "<|im_start|>assistant\n"),
    "llama2": (
        "<s>[INST] Hi [/INST] Hello. </s><s>[INST] 2+2? [/INST] 4 </s>",
        "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello. </s>"
        "<s>[INST] 2+2? [/INST] 4 </s>",
        "",
    ),
    "llama3": (
        "<s>" + LLAMA3_TEXT,
        "<s>" + LLAMA3_SYSTEM + LLAMA3_TEXT,
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "gemma": (
        "<s><start_of_turn>user\n" + GEMMA_TEXT,
        "<s><start_of_turn>user\nBe kind.\n\n" + GEMMA_TEXT,
        "<start_of_turn>model\n",
    ),
    "mistral": (
        "<s>[INST] Hi[/INST] Hello.</s>[INST] 2+2?[/INST] 4</s>",
        "<s>[INST] Be kind.\n\nHi[/INST] Hello.</s>[INST] 2+2?[/INST] 4</s>",
        "",
    ),
    "vicuna": (
        f"<s>{VICUNA_PREFACE} {VICUNA_TEXT}",
        f"<s>Be kind. {VICUNA_TEXT}",
        "ASSISTANT:",
    ),
    "alpaca": (
        f"<s>{ALPACA_PREFACE}\n\n{ALPACA_TEXT}",
        f"<s>Be kind.\n\n{ALPACA_TEXT}",
        "### Response:\n",
    ),
}

CALL = {"id": "abc123456", "type": "function", "function": {"name": "add", "arguments": {"x": 2}}}
TOOL = {"type": "function", "function": {"name": "add", "description": "+", "parameters": {}}}


def _template(name: str) -> ChatTemplate:
    return ChatTemplate(BUILT_IN[name], SPECIALS)


def test_each_name_has_a_format() -> None:
    assert set(FORMATS) == set(BUILT_IN) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_built_in_template_writes_the_public_format(name: str) -> None:
    template = _template(name)
    alone, with_system, prompt = FORMATS[name]
    assert template.render(TURNS) == alone
    assert template.render([SYSTEM, *TURNS]) == with_system
    asked = template.render(TURNS[:3], add_generation_prompt=True)
    assert asked == template.render(TURNS[:3]) + prompt
    assert alone.startswith(asked)


@pytest.mark.parametrize("name", NAMES)
def test_calls_and_results_of_tools_are_written_and_the_calls_are_trained(name: str) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "RESULT-1", "tool_call_id": "abc123456"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "3+3?"},
        {"role": "function_call", "content": '{"name": "add", "arguments": {"x": 3}}'},
        {"role": "function_response", "content": "RESULT-2"},
        {"role": "assistant", "content": "6"},
    ]
    text, spans = _template(name).render_with_spans(messages, [TOOL])
    said = {span.message: text[span.start : span.end] for span in spans}
    assert sorted(said) == list(range(8))
    for i, number in ((1, 2), (5, 3)):
        assert '"name": "add"' in said[i]
        assert f'{{"x": {number}}}' in said[i]
        # another turn, or the list of tools, is no part of it
        assert "RESULT" not in said[i]
        assert '"description"' not in said[i]
    trained = "".join(said[i] for i in (1, 3, 5, 7))
    assert "RESULT" not in trained
    assert "3+3?" not in trained
    assert '"description": "+"' in text
    assert text.count("RESULT-1") == text.count("RESULT-2") == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_format_without_the_named_tokens_still_renders(name: str) -> None:
    text = ChatTemplate(BUILT_IN[name], {}).render(TURNS)
    assert "Hello." in text
    assert "<s>" not in text


def test_no_system_turn_is_lost_where_a_format_has_none() -> None:
    for name in ("llama2", "gemma", "mistral"):
        template = _template(name)
        assert "Be kind." in template.render([SYSTEM, {"role": "assistant", "content": "Hello."}])
        twice = template.render([SYSTEM, {**SYSTEM, "content": "Be brief."}, *TURNS])
        assert "Be kind.\n\nBe brief." in twice


def test_qwen_keeps_the_thoughts_behind_the_last_question_only() -> None:
    messages = [
        {"role": "user", "content": "1?"},
        {"role": "assistant", "content": "<think>\na\n</think>\n\none"},
        {"role": "user", "content": "2?"},
        {"role": "assistant", "content": "two", "reasoning_content": "b"},
    ]
    text, spans = _template("qwen").render_with_spans(messages)
    answers = [text[span.start : span.end] for span in spans if span.message % 2]
    assert answers == ["one<|im_end|>", "<think>\nb\n</think>\n\ntwo<|im_end|>"]


@pytest.mark.parametrize("name", NAMES)
def test_a_template_is_asked_for_by_name(name: str) -> None:
    assert template_text(Tokenizer(name="x", chat_template=name)) == BUILT_IN[name]


def test_a_template_is_asked_for_inline_or_by_file(tmp_path: Path) -> None:
    inline = "{{ messages }}"
    assert template_text(Tokenizer(name="x", chat_template=inline)) == inline
    file = tmp_path / "t.jinja"
    file.write_text("Größe {{ messages }}", encoding="utf-8")
    assert template_text(Tokenizer(name="x", chat_template=str(file))) == "Größe {{ messages }}"
    assert template_text(Tokenizer(name="x")) is None


def test_a_template_that_is_nowhere_is_told_with_what_there_is(tmp_path: Path) -> None:
    missing = Tokenizer(name="x", chat_template=str(tmp_path / "none.jinja"))
    with pytest.raises(DataError, match=r"none\.jinja cannot be read \(No such file.*chatml, "):
        template_text(missing)
    (tmp_path / "latin.jinja").write_bytes(b"\xe4 {{ messages }}")
    with pytest.raises(DataError, match="it is no UTF-8"):
        template_text(Tokenizer(name="x", chat_template=str(tmp_path / "latin.jinja")))
