"""The Modelfile that Ollama reads: which GGUF, how a conversation is written, where answers end.

Ollama wants a Go template, chat templates are Jinja; no program turns one into the other. But
most templates write each message in the same way: what stands around a message is found by
rendering two conversations. If a template is not that simple, it is left out and said: Ollama then
takes the one inside the GGUF, where llama.cpp's converter puts it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterlm.weights.sources import GENERATION

USER, ASSISTANT, SYSTEM = "\x01user\x01", "\x01assistant\x01", "\x01system\x01"


@dataclass(frozen=True)
class Around:
    """What a template writes around each message."""

    system: tuple[str, str] | None
    user: tuple[str, str]
    assistant: tuple[str, str]


def modelfile_text(gguf: str, model: Path) -> str:
    """The text of a Modelfile beside the file `gguf`.

    Args:
        gguf: its name.
        model: folder with the tokenizer.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    lines = [f"FROM ./{gguf}"]
    around = find_around(tokenizer)
    if around is not None:
        lines.append(f'TEMPLATE """{go_template(around)}"""')
        if end := around.assistant[1].strip():
            lines.append(f"PARAMETER stop {json.dumps(end, ensure_ascii=False)}")
    elif getattr(tokenizer, "chat_template", None):
        lines.append("# the chat template is not simple: Ollama takes what the GGUF holds")
    else:
        lines += ["# no chat template: plain continuation", 'TEMPLATE "{{ .Prompt }}"']
    context = _read(model / "config.json").get("max_position_embeddings")
    if isinstance(context, int):
        lines.append(f"PARAMETER num_ctx {min(context, 8192)}")
    for name in ("temperature", "top_p", "top_k", "repetition_penalty"):
        if isinstance(value := _read(model / GENERATION).get(name), int | float):
            ours = "repeat_penalty" if name == "repetition_penalty" else name
            lines.append(f"PARAMETER {ours} {value}")
    return "\n".join([*lines, ""])


def find_around(tokenizer: Any) -> Around | None:
    """What stands around messages; None when it is not the same each time."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    talk = [{"role": "user", "content": USER}, {"role": "assistant", "content": ASSISTANT}]
    one, two = _render(tokenizer, talk), _render(tokenizer, talk * 2)
    asked = _render(tokenizer, talk[:1], prompts=True)
    if one is None or two is None or asked is None or one.count(USER) != 1:
        return None
    # the beginning of a text is written by Ollama itself
    start = getattr(tokenizer, "bos_token", None) or ""
    one, two, asked = (text.removeprefix(start) for text in (one, two, asked))
    before, _, rest = one.partition(USER)
    between, _, after = rest.partition(ASSISTANT)
    prompt = asked.partition(USER)[2]
    if two != one * 2 or not between.startswith(prompt) or between != prompt:
        return None
    # the words that begin the answer belong to the answer
    around = Around(None, (before, ""), (between, after))
    system = _render(tokenizer, [{"role": "system", "content": SYSTEM}, *talk])
    if system is not None and SYSTEM in system:
        head, _, rest = system.removeprefix(start).partition(SYSTEM)
        if not rest.endswith(one):
            return None
        around = Around((head, rest.removesuffix(one)), around.user, around.assistant)
    return None if any(_is_unsafe(text) for text in (one, system or "")) else around


def go_template(around: Around) -> str:
    """The same in Ollama's words."""
    system = ""
    if around.system is not None:
        head, tail = around.system
        system = f"{{{{ if .System }}}}{head}{{{{ .System }}}}{tail}{{{{ end }}}}"
    before, after = around.user
    opening, closing = around.assistant
    return (
        f"{system}{{{{ if .Prompt }}}}{before}{{{{ .Prompt }}}}{after}{opening}{{{{ end }}}}"
        f"{{{{ .Response }}}}{closing}"
    )


def _render(tokenizer: Any, talk: list[dict[str, str]], *, prompts: bool = False) -> str | None:
    try:
        text: str = tokenizer.apply_chat_template(
            talk, tokenize=False, add_generation_prompt=prompts
        )
    # a template may refuse a role, in any way it likes
    except Exception:
        return None
    return text


def _is_unsafe(text: str) -> bool:
    return "{{" in text or '"""' in text


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
