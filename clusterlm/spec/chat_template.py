"""What `data.tokenizer.chat_template` is: a built-in name, a template itself, or a file."""

from __future__ import annotations

BUILT_IN_TEMPLATES = (
    *("chatml", "llama2", "llama3", "qwen", "gemma", "mistral"),
    *("vicuna", "alpaca"),
)
"""Their texts stand in `clusterlm/data/chats/templates.py`."""


def is_inline(text: str) -> bool:
    """A template itself: no path holds a mark of Jinja."""
    return "{%" in text or "{{" in text


def is_file(text: str) -> bool:
    """Neither a template nor a name; `./chatml` is a file, whatever it is called."""
    return not is_inline(text) and text not in BUILT_IN_TEMPLATES
