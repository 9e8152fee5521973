"""Chat templates by name, written after the public descriptions of each family's format.

    chatml    <|im_start|>role / words<|im_end|>
    qwen      as chatml; the thoughts of answers before the last question are left out
    llama2    <s>[INST] <<SYS>> / system / <</SYS>> // words [/INST] words </s>
    llama3    <|start_header_id|>role<|end_header_id|> // words<|eot_id|>
    gemma     <start_of_turn>user / words<end_of_turn>; answers are `model`
    mistral   [INST] words[/INST] words</s>, [AVAILABLE_TOOLS], [TOOL_CALLS], [TOOL_RESULTS]
    vicuna    a preface, then USER: words ASSISTANT: words</s>
    alpaca    a preface, then ### Instruction: / words // ### Response: / words</s>

Llama 2, Gemma and Mistral have no system turn: its words stand in front of the next question.
A call of a tool comes as `tool_calls` of an answer or as a turn `function_call`; its result as
`tool` or `function_response`. Where a format says nothing about them, a call is a line of JSON in
the answer, and its result a question that begins with `Result:`.

None prints a date, and none refuses a role: which turns there may be is the converters' business.
bos_token and eos_token are the tokenizer's, and left out where it has none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clusterlm.errors import DataError
from clusterlm.node.files import read_json
from clusterlm.spec.chat_template import BUILT_IN_TEMPLATES, is_inline
from clusterlm.spec.data import Tokenizer

_FOLDER = Path(__file__).parent / "chat_templates"

BUILT_IN: dict[str, str] = {
    name: (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8") for name in BUILT_IN_TEMPLATES
}

CHATML = BUILT_IN["chatml"]
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")

TEMPLATE_FILE = "chat_template.jinja"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")


def template_text(spec: Tokenizer) -> str | None:
    """The chat template that the spec asks for: by name, inline, or from a file; None: none asked.

    Raises:
        DataError: it is neither a name nor Jinja, and no such file can be read.
    """
    asked = spec.chat_template
    if asked is None or asked in BUILT_IN:
        return None if asked is None else BUILT_IN[asked]
    if is_inline(asked):
        return asked
    try:
        return Path(asked).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise DataError(
            f"data.tokenizer.chat_template: {asked[:200]} cannot be read ({reason});"
            f" write a file, one of {', '.join(BUILT_IN_TEMPLATES)}, or the template itself"
        ) from error


def template_in(folder: Path) -> str | None:
    """The chat template that a tokenizer's folder brings."""
    if (folder / TEMPLATE_FILE).is_file():
        return (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
    for name in ("chat_template.json", CONFIG_FILE):
        template = (read_json(folder / name) or {}).get("chat_template")
        if isinstance(template, list):  # several by name: [{"name": "default", "template": ...}]
            named = {entry["name"]: entry["template"] for entry in template}
            template = named.get("default")
        if isinstance(template, str):
            return template
    return None


def special_texts_in(folder: Path) -> dict[str, str]:
    """What the bos_token, eos_token, ... of a tokenizer's folder are, as text."""
    merged: dict[str, Any] = read_json(folder / "special_tokens_map.json") or {}
    merged |= read_json(folder / CONFIG_FILE) or {}
    texts = {}
    for role in SPECIAL_ROLES:
        value = merged.get(role)
        # either the text, or an added token with its flags
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            texts[role] = text
    return texts
