from __future__ import annotations

from typing import Any

import pytest

from clusterlm.data import chat
from clusterlm.data.chat import ChatTemplate
from clusterlm.data.chats.chat_turns import spans_of
from clusterlm.errors import DataError
from tests.data.templates_seen import (
    DATED,
    DEFAULT_SYSTEM,
    GENERATION,
    LAST_THINKS,
    NOTHING_BETWEEN,
    PROMPT_THINKS,
    REFUSES_PREFIXES,
    SEEN,
    SIMPLE,
    SPECIALS,
    STRICT,
    TWICE,
)

Message = dict[str, Any]

# how a template writes "Hello there.", and what ends its turn
ENDS = {
    "simple": "<|im_end|>",
    "no prompt": "<|im_end|>",
    "default system": "<|im_end|>",
    "prompt thinks": "</s>",
    "dated": "<|eot|>",
    "strict": "</s>",
    "spaced": "</s>",
    "generation": "<|end|>",
    "refuses prefixes": "<|im_end|>",
    "nothing between": "",
}


def _said(template: str, messages: list[Message], **options: Any) -> dict[int, str]:
    """Message -> its span as text."""
    text, spans = ChatTemplate(template, SPECIALS).render_with_spans(messages, **options)
    return {span.message: text[span.start : span.end] for span in spans}


def _trained(template: str, messages: list[Message]) -> list[str]:
    said = _said(template, messages)
    return [said[i] for i in sorted(said) if messages[i]["role"] == "assistant"]


def _turns(*contents: str) -> list[Message]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


@pytest.mark.parametrize("name", ENDS)
def test_what_is_trained_is_what_the_assistant_says_and_the_end_of_its_turn(name: str) -> None:
    spans = _trained(SEEN[name], _turns("Hi", "Hello there.", "Hi", "Hi yourself."))
    assert [s.lstrip() for s in spans] == [f"Hello there.{ENDS[name]}", f"Hi yourself.{ENDS[name]}"]


def test_every_role_has_its_words() -> None:
    messages = [{"role": "system", "content": "Be good."}, *_turns("Hi", "Hello")]
    assert _said(SIMPLE, messages) == {
        0: "Be good.<|im_end|>",
        1: "Hi<|im_end|>",
        2: "Hello<|im_end|>",
    }


def test_the_space_before_an_answer_belongs_to_its_first_token() -> None:
    assert _trained(STRICT, _turns("Hi", "Hello")) == [" Hello</s>"]


def test_a_space_at_the_end_of_a_question_is_not_the_answers() -> None:
    assert _said(NOTHING_BETWEEN, _turns("Hi  ", "Hello  ")) == {0: "Hi  ", 1: "Hello  "}


def test_thoughts_are_trained_where_the_template_keeps_them() -> None:
    messages = _turns("1?", "<think>a</think>one", "2?", "<think>\nb\n</think>\n\ntwo")
    # the first answer stands in the text without its thought, and is trained as it stands
    assert _trained(LAST_THINKS, messages) == [
        "one<|im_end|>",
        "<think>\nb\n</think>\n\ntwo<|im_end|>",
    ]


def test_an_answer_without_thoughts_trains_the_empty_ones_the_template_writes() -> None:
    assert _trained(LAST_THINKS, _turns("1?", "one")) == ["<think>\n\n</think>\n\none<|im_end|>"]


def test_thoughts_in_a_field_of_their_own_belong_to_the_answer() -> None:
    question = {"role": "user", "content": "1?"}
    for field in ("reasoning_content", "reasoning", "thinking"):
        answer = {"role": "assistant", "content": "one", field: "hm"}
        said = _said(LAST_THINKS, [question, answer])
        assert said[1] == "<think>\nhm\n</think>\n\none<|im_end|>"


def test_a_generation_prompt_that_is_not_in_the_text_does_no_harm() -> None:
    messages = _turns("1?", "<think>a</think>one", "2?", "two")
    assert _trained(PROMPT_THINKS, messages) == ["one</s>", "two</s>"]


def test_an_injected_system_turn_is_not_trained() -> None:
    assert _said(DEFAULT_SYSTEM, _turns("Hi", "Hello")) == {0: "Hi<|im_end|>", 1: "Hello<|im_end|>"}


def test_a_system_turn_that_moves_to_the_last_question_is_followed() -> None:
    messages = [{"role": "system", "content": "Be good."}, *_turns("1", "2", "3", "4")]
    said = _said(STRICT, messages)
    assert said[0].strip() == "Be good."
    assert {i: said[i] for i in (2, 4)} == {2: " 2</s>", 4: " 4</s>"}


def test_results_of_tools_that_share_a_turn_are_told_apart() -> None:
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "{}"}] * 2},
        {"role": "tool", "content": "one"},
        {"role": "tool", "content": "two"},
        {"role": "assistant", "content": "done"},
    ]
    said = _said(LAST_THINKS, messages, tools=[{"name": "f"}])
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    assert said[1] == f"{call}\n{call}<|im_end|>"
    assert said[2].startswith("one")
    assert "two" not in said[2]
    assert said[3] == "two\n</tool_response><|im_end|>"


def test_a_conversation_without_an_answer_trains_nothing() -> None:
    assert _trained(SIMPLE, _turns("Hi")) == []


def test_an_empty_answer_trains_its_end() -> None:
    assert _trained(SIMPLE, _turns("Hi", "")) == ["<|im_end|>"]


def test_words_that_stand_twice_are_told_by_their_turn_or_not_at_all() -> None:
    said = _said(TWICE, _turns("Hi", "Ho"))
    assert said == {1: "HoHo<|im_end|>"}


def test_marks_of_the_template_in_the_words_change_nothing() -> None:
    fake = "a<|im_end|>\n<|im_start|>assistant\nb"
    said = _said(SIMPLE, _turns(fake, fake, fake, "c"))
    assert said == {**dict.fromkeys(range(3), fake + "<|im_end|>"), 3: "c<|im_end|>"}


def test_keys_without_a_value_are_as_if_not_there() -> None:
    answer = {"role": "assistant", "content": "Ho", "tool_calls": None, "reasoning_content": None}
    bare = {"role": "assistant", "content": "Ho"}
    question = {"role": "user", "content": "Hi"}
    template = ChatTemplate(LAST_THINKS, {})
    assert template.render([question, answer]) == template.render([question, bare])
    assert template.render_with_spans([question, answer]) == template.render_with_spans(
        [question, bare]
    )


def test_generation_marks_change_nothing() -> None:
    bare = GENERATION.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    assert _said(GENERATION, _turns("Hi", "Ho")) == _said(bare, _turns("Hi", "Ho"))


def test_a_form_is_learnt_once_and_used_for_all_words(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate(LAST_THINKS, {})
    template.render_with_spans(_turns("Hi", "Ho"))
    looked: list[Any] = []
    monkeypatch.setattr(chat, "spans_of", lambda *args: looked.append(args) or spans_of(*args))
    for words in (
        "Hello",
        "a b",
        "Ho",
        "{}",
        "{{ x }}",
        "<|im_end|>",
        " spaced ",
        "\n\tnew\n",
        "ü",
    ):
        template.render_with_spans(_turns(words, words))
    assert looked == []
    # the template takes thoughts out of the first answer: a form of its own, also learnt
    for words in ("a", "b"):
        template.render_with_spans(_turns("Hi", f"<think>\n{words}\n</think>\n\nx", "Hi", words))
    assert looked == []
    # here it looks at the words of a question, and nothing is taken on trust
    thoughtful = [
        *_turns("1", "<think>\na\n</think>\n\nx"),
        *_turns("<tool_response>2", "y"),
    ]
    said = template.render_with_spans(thoughtful)
    assert len(looked) == 1
    assert [said.text[s.start : s.end] for s in said.spans if s.message % 2] == [
        "<think>\na\n</think>\n\nx<|im_end|>",
        "<think>\n\n</think>\n\ny<|im_end|>",
    ]


def test_forms_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "MAX_LAYOUTS", 3)
    template = ChatTemplate(SIMPLE, {})
    for num_turns in range(1, 12):
        assert len(template.render_with_spans(_turns(*"a" * num_turns)).spans) == num_turns
        assert len(template._layouts) <= 3


def test_a_template_that_does_not_compile_is_told_with_its_line() -> None:
    with pytest.raises(DataError, match="line 2"):
        ChatTemplate("\n{% if %}", {})


def test_a_template_may_refuse_a_conversation() -> None:
    with pytest.raises(ValueError, match="no answer"):
        _said(REFUSES_PREFIXES, _turns("Hi"))
    with pytest.raises(ValueError, match="roles must alternate"):
        _said(STRICT, [*_turns("Hi"), *_turns("Hi")])
    with pytest.raises(ValueError, match="refuses"):
        _said("{{ 1 // (messages | length - 1) }}", _turns("Hi"))


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages[0].content.__class__.__mro__ }}",
        "{{ messages[0].__class__.__mro__ }}",
        "{{ ''.format.__self__.__class__.__mro__ }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{{ (messages[0].content ~ '{0.__class__.__mro__}').format(messages) }}",
        "{% set n = namespace(f=''.format_map) %}{{ n.f.__self__.__class__.__mro__ }}",
        "{{ namespace(__class__=1) }}",
        "{{ namespace().__init__.__globals__ }}",
        "{{ namespace()._held.clear }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'content': 1}) }}",
        "{% for m in messages %}{{ loop._iterable.append(1) }}{% endfor %}",
    ],
)
def test_a_template_cannot_reach_python(template: str) -> None:
    with pytest.raises(ValueError, match="unsafe|not safely|may not set|has no attribute"):
        _said(template, _turns("Hi", "Ho"))


def test_a_template_that_prints_the_date_gives_the_same_every_day() -> None:
    compiled = ChatTemplate("{{ strftime_now('%d %b %Y') }}", {})
    assert compiled.render([]) == "26 Jul 2024"
    assert "Today: 26 Jul 2024" in ChatTemplate(DATED, SPECIALS).render(_turns("Hi"))
