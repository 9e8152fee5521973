"""Text between a terminal and a model: neither may break the other.

What comes in may be no text (bytes of another encoding), which a tokenizer refuses; what a model
says may hold the sequences that a terminal obeys: clear the screen, set the title, write files.
"""

from __future__ import annotations

import sys
from typing import TextIO

_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
# DEL, and the codes that stand for ESC and a letter in one
_VISIBLE = _PICTURES | {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def as_text(typed: str) -> str:
    """What was typed, with U+FFFD in place of bytes that are no text."""
    return typed.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def visible(said: str) -> str:
    """Control characters as pictures of them: `␛[2J`; lines and tabs stay."""
    return said.translate(_VISIBLE)


def read_all(stream: TextIO) -> str:
    """A pipe to its end, whatever is in it."""
    take_anything(stream)
    return as_text(stream.read())


def take_anything(stream: TextIO) -> None:
    """Let a stream stand for what it cannot hold by a mark, instead of failing."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def write_answer(text: str) -> None:
    """To the standard output, at once; as it is where a program reads it."""
    print(visible(text) if sys.stdout.isatty() else text, end="", flush=True)
