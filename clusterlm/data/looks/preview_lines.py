"""A preview in a terminal: trained tokens in green, neighbours in two shades; or in plain text.

Without colours a trained stretch stands between ⟦ and ⟧, and tokens are parted by ¦. Whatever is in
the data, nothing in it reaches the terminal but what can be seen.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from clusterlm.data.looks.preview import Seen, SourcePreview
from clusterlm.data.looks.token_words import Token, visible
from clusterlm.data.summary import REASONS
from clusterlm.spec.wording import printable, times

if TYPE_CHECKING:
    from rich.text import Text

HEAD_TOKENS, TAIL_TOKENS = 300, 60
"""Shown of a longer document."""

# the letters are set too, so that it can be read on a light ground as well
_TRAINED = ("#f0fff4 on #14532d", "#f0fff4 on #1c7a42")
_IN_PART = ("#eff6ff on #1e3a8a", "#eff6ff on #2f55c4")
_OTHER = ("#d4d4d4 on #303030", "#d4d4d4 on #444444")
_SPECIAL = "bold #fde047"

_MARKS, _ASCII_MARKS = ("⟦", "⟧", "¦"), ("[[", "]]", "|")


def print_previews(
    previews: Iterable[SourcePreview], out: TextIO, *, is_coloured: bool, is_full: bool
) -> None:
    """Print them as they come.

    Args:
        previews: one of each source.
        out: where to.
        is_coloured: for a terminal; else marked in plain text.
        is_full: do not leave out the middle of long documents.
    """
    screen = _Coloured(out) if is_coloured else _Plain(out)
    screen.legend()
    for preview in previews:
        screen.head(_head(preview))
        for seen in preview.seen:
            screen.place(near(seen.place), "; ".join(counted(seen)))
            screen.tokens(*(shortened(seen.tokens) if not is_full else (seen.tokens, 0, [])))
        for line in _foot(preview):
            screen.line(line)


def shortened(
    tokens: Sequence[Token], head: int = HEAD_TOKENS, tail: int = TAIL_TOKENS
) -> tuple[Sequence[Token], int, Sequence[Token]]:
    """The beginning, how many tokens are left out, the end."""
    if len(tokens) <= head + tail:
        return tokens, 0, []
    return tokens[:head], len(tokens) - head - tail, tokens[-tail:]


def counted(seen: Seen) -> list[str]:
    """What there is to say of a document, in words."""
    words = [f"{times(seen.num_tokens, 'token')}, {seen.num_trained:,} trained"]
    if set(seen.weights) - {1.0}:
        shares = (f"{count:,} with weight {w:g}" for w, count in sorted(seen.weights.items()))
        words.append(", ".join(shares))
    if seen.domain is not None:
        words.append(f"domain {printable(seen.domain)}")
    return [*words, *seen.notes]


def near(place: str) -> str:
    """A path as it is shown: from the current folder, where it lies below."""
    return printable(place.removeprefix(f"{os.getcwd()}{os.sep}"))


def reasons_of(preview: SourcePreview) -> str:
    """`left out of the first 12 records: 2 empty, ...`; empty when nothing was."""
    found = [f"{preview.counts[k]:,} {text}" for k, text in REASONS.items() if preview.counts[k]]
    if not found:
        return ""
    return f"left out of the first {times(preview.num_records, 'record')}: {', '.join(found)}"


def _head(preview: SourcePreview) -> tuple[str, str]:
    return preview.place, f"{preview.source.kind}  {near(preview.path)}"


def _foot(preview: SourcePreview) -> Iterator[str]:
    if not preview.seen:
        yield f"nothing that can be used in the first {times(preview.num_records, 'record')}"
    if reasons := reasons_of(preview):
        yield reasons
    for one in preview.left_out:
        yield f"  {near(one.place)}: {printable(one.detail)}"
    yield from (f"note: {note}" for note in preview.notes)


class _Plain:
    """Marks in the text; for a file, a pipe, or somebody who wants no colours."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        try:
            "".join(_MARKS).encode(out.encoding or "ascii")
            self._open, self._close, self._cut = _MARKS
        except UnicodeEncodeError:
            self._open, self._close, self._cut = _ASCII_MARKS

    def line(self, text: str) -> None:
        self._out.write(text + "\n")

    def legend(self) -> None:
        self.line(f"{self._open}trained{self._close}  tokens are parted by {self._cut}")

    def head(self, words: tuple[str, str]) -> None:
        self.line(f"\n{'  '.join(words)}")

    def place(self, place: str, words: str) -> None:
        self.line(f"\n--- {place}: {words}")

    def tokens(self, front: Sequence[Token], left_out: int, back: Sequence[Token]) -> None:
        text = self._marked(front)
        if left_out:
            text += f"\n... {left_out:,} more ...\n{self._marked(back)}"
        self.line(text)

    def _marked(self, tokens: Sequence[Token]) -> str:
        pieces: list[str] = []
        before = 0.0
        for number, token in enumerate(tokens):
            if token.weight != before:
                pieces.append(self._close if before else "")
                named = f"{token.weight:g}:" if token.weight not in (0.0, 1.0) else ""
                pieces.append(self._open + named if token.weight else "")
            elif number:
                pieces.append(self._cut)
            pieces.append(visible(token.text))
            before = token.weight
        return "".join([*pieces, self._close if before else ""])


class _Coloured:
    """Grounds of two shades, one token after the other."""

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console
        from rich.text import Text

        self._console = Console(file=out, highlight=False, markup=False, emoji=False)
        self._text = Text

    def line(self, text: str) -> None:
        self._console.print(text)

    def legend(self) -> None:
        named = (
            (_TRAINED[0], "trained"),
            (_IN_PART[0], "trained with a weight"),
            (_OTHER[0], "not trained"),
            (f"{_OTHER[0]} {_SPECIAL}", "special token"),
        )
        text = self._text()
        for style, words in named:
            text.append(f" {words} ", style).append("  ")
        self._console.print(text)

    def head(self, words: tuple[str, str]) -> None:
        self._console.print()
        self._console.print(self._text.assemble((words[0], "bold"), "  ", words[1]))

    def place(self, place: str, words: str) -> None:
        self._console.print()
        self._console.print(self._text.assemble((place, "cyan"), "  ", words))

    def tokens(self, front: Sequence[Token], left_out: int, back: Sequence[Token]) -> None:
        self._console.print(self._shaded(front))
        if left_out:
            self._console.print(f"... {left_out:,} more ...")
            self._console.print(self._shaded(back))

    def _shaded(self, tokens: Sequence[Token]) -> Text:
        text = self._text(overflow="fold")
        for number, token in enumerate(tokens):
            kind = _OTHER if not token.weight else _TRAINED if token.weight == 1.0 else _IN_PART
            style = kind[number % 2] + (f" {_SPECIAL}" if token.is_special else "")
            lines = visible(token.text).split("\n")
            for place, line in enumerate(lines):
                # a ground behind a newline would fill the whole line
                text.append("\n" if place else "").append(line, style)
        return text
