from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.data.chat import CHATML, ChatTemplate
from clusterlm.errors import DataError

LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim + '<|eot|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
VICUNA = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + message['content'] + '</s>' }}{% endif %}{% endfor %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe good<|im_end|>\n' }}{% endif %}" + CHATML
)
NO_PROMPT = CHATML.partition("{% if add_generation_prompt")[0]
GENERATION = (
    "{% for message in messages %}<|{{ message['role'] }}|>{% generation %}"
    "{{ message['content'] + '<|end|>' }}{% endgeneration %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# as Qwen-3: what was thought in earlier turns is left out
REWRITES = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and not loop.last and '</think>' in message['content'] %}"
    "{{ message['content'].split('</think>')[-1] }}{% else %}{{ message['content'] }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
REFUSES_PREFIXES = (
    "{% if messages[-1]['role'] != 'assistant' %}{{ raise_exception('no answer') }}{% endif %}"
    + NO_PROMPT
)

ENDS = {
    "chatml": (CHATML, "<|im_end|>"),
    "llama3": (LLAMA_3, "<|eot|>"),
    "mistral": (MISTRAL, "</s>"),
    "vicuna": (VICUNA, "</s>"),
    "default system": (DEFAULT_SYSTEM, "<|im_end|>"),
    "no generation prompt": (NO_PROMPT, "<|im_end|>"),
    "generation marks": (GENERATION, "<|end|>"),
    "rewrites": (REWRITES, "<|im_end|>"),
    "refuses prefixes": (REFUSES_PREFIXES, "<|im_end|>"),
}


def _trained(template: str, messages: list[dict[str, str]]) -> list[str]:
    compiled = ChatTemplate(template, {"bos_token": "<s>", "eos_token": "</s>"})
    text, spans = compiled.render_with_spans(messages)
    return [text[start:end] for start, end in spans]


def _turns(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


@pytest.mark.parametrize("name", ENDS)
def test_what_is_trained_is_what_the_assistant_says_and_the_end_of_its_turn(name: str) -> None:
    template, end = ENDS[name]
    spans = _trained(template, _turns("Hi", "Hello there.", "Hi", "Hi yourself."))
    assert [span.lstrip() for span in spans] == [f"Hello there.{end}", f"Hi yourself.{end}"]


@pytest.mark.parametrize("name", ENDS)
@given(
    words=st.lists(st.sampled_from(["Hi", "Hello", "user", "assistant", "a b", "."]), min_size=2)
)
def test_repeated_words_do_not_move_the_spans(name: str, words: list[str]) -> None:
    template, end = ENDS[name]
    messages = _turns(*words[: len(words) // 2 * 2])
    spans = [span.strip() for span in _trained(template, messages)]
    assert spans == [m["content"] + end for m in messages if m["role"] == "assistant"]


def test_the_space_before_an_answer_belongs_to_its_first_token() -> None:
    assert _trained(MISTRAL, _turns("Hi", "Hello")) == [" Hello</s>"]


def test_thoughts_are_trained_where_the_template_keeps_them() -> None:
    messages = _turns("1?", "<think>a</think>one", "2?", "<think>b</think>two")
    assert _trained(REWRITES, messages)[-1] == "<think>b</think>two<|im_end|>"
    # the first answer stands in the text without its thought, and is trained as it stands
    assert _trained(REWRITES, messages)[0] == "one<|im_end|>"


def test_an_injected_system_turn_is_not_trained() -> None:
    assert _trained(DEFAULT_SYSTEM, _turns("Hi", "Hello")) == ["Hello<|im_end|>"]


def test_a_conversation_without_an_answer_has_no_spans() -> None:
    assert _trained(CHATML, _turns("Hi")) == []


def test_an_empty_answer_trains_its_end() -> None:
    assert _trained(CHATML, _turns("Hi", "")) == ["<|im_end|>"]


def test_a_template_that_does_not_compile_is_told_with_its_line() -> None:
    with pytest.raises(DataError, match="line 2"):
        ChatTemplate("\n{% if %}", {})


def test_a_template_may_refuse_a_conversation() -> None:
    with pytest.raises(ValueError, match="no answer"):
        _trained(REFUSES_PREFIXES, _turns("Hi"))


def test_a_template_cannot_reach_python() -> None:
    with pytest.raises(ValueError, match="unsafe"):
        _trained("{{ messages.__class__.__mro__ }}", _turns("Hi", "Ho"))


def test_a_template_that_prints_the_date_gives_the_same_every_day() -> None:
    compiled = ChatTemplate("{{ strftime_now('%d %b %Y') }}", {})
    assert compiled.render([]) == "26 Jul 2024"
