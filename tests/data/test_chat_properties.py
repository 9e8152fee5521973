"""Properties over many templates: spans against a slow reference, text against transformers.

What a reader should know of the reference: it changes the words one character at a time and sees
which characters of the text change. It knows nothing of prefixes, prompts or stand-ins.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterlm.data.chat import ChatTemplate, Span
from clusterlm.data.chats.chat_form import form_of
from clusterlm.data.chats.chat_turns import spans_of
from clusterlm.spec.chat_template import BUILT_IN_TEMPLATES as NAMES
from tests.data.templates_seen import ALL, SEEN, SPECIALS

Message = dict[str, Any]

WORDS = [
    "Hi",
    "Hello there",
    "assistant",
    "user\n",
    " a  b ",
    "\n\nx\n",
    "",
    " ",
    "Привет, 世界 😀",
    'say "yes" \\n {"a": 1}',
    "{{ bos_token }} {% if %}",
    "<|im_end|>\n<|im_start|>assistant\nno",
    "[/INST] </s><s>[INST] x",
    "<start_of_turn>model\n<end_of_turn>",
    "<think>\nhm\n</think>\n\nso",
    "<think>a</think>",
    "hm</think>so",
    "<think></think> <think>b</think> c",
    "### Response:\nUSER: ASSISTANT:",
    "<tool_response>\n1\n</tool_response>",
    "\u2003wide\u2003",
]
words = st.one_of(
    st.sampled_from(WORDS),
    st.lists(st.sampled_from([*"ab .\n\"'{}<>é", "</think>"]), max_size=8).map("".join),
)


@st.composite
def talks(draw: st.DrawFn) -> list[Message]:
    """A system turn, or none; then questions and answers."""
    turns = draw(st.lists(st.tuples(words, words), min_size=1, max_size=3))
    pairs = tuple(pair for q, a in turns for pair in (("user", q), ("assistant", a)))
    system = [("system", draw(words))] if draw(st.booleans()) else []
    return [{"role": role, "content": said} for role, said in [*system, *pairs]]


arguments = st.one_of(
    st.dictionaries(
        st.sampled_from(["x", "city", "a b"]),
        st.one_of(words, st.integers(), st.booleans(), st.none(), st.lists(words, max_size=2)),
        max_size=2,
    ),
    st.sampled_from(['{"x": 1}', "{}"]),
)


@st.composite
def tool_talks(draw: st.DrawFn) -> tuple[list[Message], list[dict[str, Any]] | None]:
    """Conversations with calls, results, thoughts and all roles, in any order."""
    messages: list[Message] = []
    for role in draw(
        st.lists(
            st.sampled_from(
                ["system", "user", "assistant", "assistant", "call", "tool", "function_call"]
                + ["function_response", "developer", "thoughtful"]
            ),
            min_size=1,
            max_size=6,
        )
    ):
        message: Message = {"role": role, "content": draw(words)}
        if role == "call":
            calls = [
                {
                    "id": "abc123456",
                    "type": "function",
                    "function": {"name": draw(st.sampled_from("fg")), "arguments": draw(arguments)},
                }
                for _ in range(draw(st.integers(1, 2)))
            ]
            message |= {"role": "assistant", "tool_calls": calls}
        if role == "thoughtful":
            message |= {"role": "assistant", "reasoning_content": draw(words)}
        if draw(st.integers(0, 5)) == 0:
            message |= draw(st.sampled_from([{"weight": 0}, {"name": "Bob"}, {"tool_calls": None}]))
        messages.append(message)
    tool = {
        "type": "function",
        "function": {"name": "f", "description": draw(words), "parameters": {"p": draw(arguments)}},
    }
    return messages, draw(st.sampled_from([None, None, [tool], [tool, tool], []]))


@functools.cache
def _template(name: str) -> ChatTemplate:
    # one for all examples: what was learnt of others must not change what is found
    return ChatTemplate(ALL[name], SPECIALS)


def _slow(name: str, messages: list[Message], tools: Any, text: str) -> list[Span]:
    form = form_of(messages, tools, has_thoughts=False)
    return spans_of(_template(name)._renderer, form.messages, tools, text)


def _without_refusal(name: str, messages: list[Message], tools: Any = None) -> Any:
    try:
        return _template(name).render_with_spans(messages, tools)
    except ValueError:
        return None


# ---- the reference: change one character, and see which characters of the text change


OTHER = "\ue123"


def _owned(name: str, messages: list[Message], i: int, text: str) -> list[int]:
    """Places in the text of the characters of a message, one rendering for each of them."""
    content, places = messages[i]["content"], []
    for j, character in enumerate(content):
        if character.isspace():
            continue
        other = content[:j] + OTHER + content[j + 1 :]
        changed = [*messages[:i], {**messages[i], "content": other}, *messages[i + 1 :]]
        rendered = _template(name).render(changed)
        differs = [k for k, (a, b) in enumerate(zip(text, rendered, strict=False)) if a != b]
        if len(rendered) == len(text) and len(differs) == 1:
            places += differs
    return places


# what stands between a message's words and its end, and the end; of answers
MARKS = {
    **{name: "<|im_end|>" for name in ("chatml", "qwen", "simple", "no prompt", "default system")},
    **{name: "<|im_end|>" for name in ("last thinks", "refuses prefixes")},
    **{name: "</s>" for name in ("llama2", "mistral", "vicuna", "alpaca", "spaced", "strict")},
    "prompt thinks": "</s>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "dated": "<|eot|>",
    "generation": "<|end|>",
    "nothing between": "",
}


@pytest.mark.parametrize("name", MARKS)
@given(messages=talks())
@settings(max_examples=25, deadline=None)
def test_spans_are_what_a_slow_reference_finds(name: str, messages: list[Message]) -> None:
    rendered = _without_refusal(name, messages)
    if rendered is None:
        return
    text, spans = rendered
    owned = {i: _owned(name, messages, i, text) for i in range(len(messages))}
    found = {span.message: span for span in spans}
    for i, message in enumerate(messages):
        others = {k for j, places in owned.items() if j != i for k in places}
        if i in found:
            own = range(found[i].start, found[i].end)
            assert not others & set(own)
            assert set(owned[i]) <= set(own)
        if not owned[i]:
            continue
        # "last thinks" looks at how a question begins: other words change more than their place
        if name != "last thinks" or not message["content"].startswith("<tool_response>"):
            assert i in found, "words that stand in the text have a span"
        if i not in found:
            continue
        before = text[found[i].start : min(owned[i])]
        behind = text[max(owned[i]) + 1 : found[i].end]
        if message["role"] == "assistant" and "think>" not in message["content"]:
            assert before.replace("<think>\n\n</think>\n\n", "").strip() == ""
            assert behind.strip() == MARKS[name]


@pytest.mark.parametrize("name", ALL)
@given(messages=talks())
@settings(max_examples=40, deadline=None)
def test_spans_are_the_same_by_form_and_by_comparison(name: str, messages: list[Message]) -> None:
    rendered = _without_refusal(name, messages)
    if rendered is not None:
        assert rendered.spans == _slow(name, messages, None, rendered.text)


@pytest.mark.parametrize("name", ALL)
@given(talk=tool_talks())
@settings(max_examples=60, deadline=None)
def test_spans_with_tools_are_the_same_by_form_and_by_comparison(name: str, talk: Any) -> None:
    rendered = _without_refusal(name, *talk)
    if rendered is not None:
        assert rendered.spans == _slow(name, *talk, rendered.text)
        ends = [place for span in rendered.spans for place in (span.start, span.end)]
        assert ends == sorted(ends), "spans do not overlap"
        assert all(span.start < span.end for span in rendered.spans)
        messages = [span.message for span in rendered.spans]
        assert len(set(messages)) == len(messages)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models

    bare = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "?": 2}, unk_token="?"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bare, **SPECIALS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", [n for n in ALL if n != "dated"])
@given(talk=st.one_of(tool_talks(), talks().map(lambda messages: (messages, None))))
@settings(max_examples=60, deadline=None)
def test_text_is_what_transformers_renders(name: str, talk: Any, tokenizer: Any) -> None:
    messages, tools = talk
    for prompt in (False, True):
        options = {"add_generation_prompt": prompt, "tools": tools}
        theirs: str | None
        try:
            theirs = tokenizer.apply_chat_template(
                messages, chat_template=ALL[name], tokenize=False, **options
            )
        except Exception:  # as many kinds as templates have ways to fail
            theirs = None
        try:
            assert _template(name).render(messages, **options) == theirs
        except ValueError:
            assert theirs is None


@pytest.mark.parametrize("name", NAMES)
@given(messages=talks())
@settings(max_examples=30, deadline=None)
def test_conversations_take_the_short_way(name: str, messages: list[Message]) -> None:
    template = _template(name)
    form = form_of(messages, None, has_thoughts=template._has_thoughts)
    text = template.render_with_spans(messages).text
    layout = template._layouts[form.key]
    assert layout is not None
    has_odd_thoughts = any(m["content"].count("</think>") > 1 for m in messages)
    assert has_odd_thoughts or layout.spans_in(text, form) is not None


def test_every_seen_template_is_marked_or_odd_on_purpose() -> None:
    assert set(ALL) - set(MARKS) == {"as json", "upper", "twice"}
    assert set(SEEN) <= set(ALL)
