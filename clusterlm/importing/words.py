"""A shell script as words: quotes, comments, continued lines, here-documents. Nothing is run.

A word is a list of parts. What has to be filled in later is a part of its own, so that

    --lr ${lr} "a b"$X      ->  [--lr]  [(lr)]  [a b, (X)]

and an unquoted value may still be cut at its spaces, as a shell does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

BREAKS = " \t\n;&|()<>"
OPEN, CLOSE = "\ue000", "\ue001"
"""Around what has no value yet; such a mark is one character of a word, whatever is in it."""
OPERATORS = ("&&", "||", ";;", "|&", "&>>", "&>", ">>", "<<-", "<<<", "<<", ">&", "<&")


@dataclass(frozen=True)
class Part:
    """A piece of a word.

    Attributes:
        text: as it stands; of a variable, what stands between `${` and `}`; of a command, all.
        kind: text, variable or command.
        is_quoted: a value filled in here is not cut at its spaces.
    """

    text: str
    kind: str = "text"
    is_quoted: bool = False


@dataclass
class Word:
    """Parts without a space between them; `items` are those of an array, NAME=(a b)."""

    line: int
    parts: list[Part] = field(default_factory=list)
    items: list[Word] | None = None

    @property
    def plain(self) -> str:
        """The text, when nothing has to be filled in."""
        return "".join(part.text for part in self.parts if part.kind == "text")


@dataclass(frozen=True)
class Operator:
    """`;`, `&&`, `|`, `>`, a line's end ..."""

    text: str
    line: int


@dataclass(frozen=True)
class HereText:
    """The lines of a here-document, after the line that announced it."""

    text: str
    line: int


Token = Word | Operator | HereText


class Unreadable(Exception):
    """A quote or bracket that is never closed."""

    def __init__(self, what: str, line: int) -> None:
        self.line = line
        super().__init__(f"line {line}: {what} is never closed")


class Lexer:
    """Reads a text once, from its beginning."""

    def __init__(self, text: str, line: int = 1) -> None:
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._line = line
        self._ends: list[str] = []

    def tokens(self) -> Iterator[Token]:
        """Words, operators and here-documents, in order."""
        awaits_end = False
        while self._at < len(self._text):
            char = self._text[self._at]
            if char in " \t" or self._next_is("\\\n"):
                self._skip(2 if char == "\\" else 1)
            elif char == "#":
                self._at = self._find("\n", len(self._text))
            elif char == "\n":
                yield Operator("\n", self._line)
                self._skip(1)
                yield from self._here_texts()
            elif char in BREAKS:
                token = self._operator()
                awaits_end = token.text in ("<<", "<<-")
                yield token
            else:
                word = self._word()
                if awaits_end:
                    self._ends.append(word.plain)
                    awaits_end = False
                yield word

    def _word(self) -> Word:
        word = Word(self._line)
        while self._at < len(self._text) and self._text[self._at] not in BREAKS:
            if self._next_is("\\\n"):
                self._skip(2)
            else:
                word.parts += self._parts()
        if self._next_is("(") and word.parts and word.parts[-1].text.endswith("="):
            self._skip(1)
            word.items = list(self._array())
        return word

    def _array(self) -> Iterator[Word]:
        line = self._line
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == ")":
                self._skip(1)
                return
            if char in " \t\n" or self._next_is("\\\n"):
                self._skip(2 if char == "\\" else 1)
            elif char == "#":
                self._at = self._find("\n", len(self._text))
            elif char in BREAKS:
                self._skip(1)
            else:
                yield self._word()
        raise Unreadable("the bracket of a list", line)

    def _parts(self) -> list[Part]:
        char = self._text[self._at]
        if char == "'":
            end = self._end_of("'", "a quote")
            return [self._take(end, 1)]
        if char == '"':
            return self._double_quoted()
        if char in "$`":
            return [self._expansion(is_quoted=False)]
        if char == OPEN:
            return [Part(self._mark())]
        if char == "\\":
            self._skip(1)
            return [Part(self._one(), is_quoted=True)]
        return [Part(self._one())]

    def _double_quoted(self) -> list[Part]:
        line = self._line
        self._skip(1)
        parts = [Part("", is_quoted=True)]
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._skip(1)
                return parts
            if self._next_is("\\\n"):
                self._skip(2)
            elif char == "\\" and self._text[self._at + 1 : self._at + 2] in ("$", "`", '"', "\\"):
                self._skip(1)
                parts.append(Part(self._one(), is_quoted=True))
            elif char in "$`":
                parts.append(self._expansion(is_quoted=True))
            elif char == OPEN:
                parts.append(Part(self._mark(), is_quoted=True))
            else:
                parts.append(Part(self._one(), is_quoted=True))
        raise Unreadable("a quote", line)

    def _mark(self) -> str:
        start = self._at
        self._skip(self._find(CLOSE, len(self._text)) + 1 - start)
        return self._text[start : self._at]

    def _expansion(self, *, is_quoted: bool) -> Part:
        if self._next_is("`"):
            end = self._end_of("`", "a `")
            return Part(self._take(end, 1).text, "command", is_quoted)
        if self._next_is("$("):
            return Part(self._bracketed("(", ")"), "command", is_quoted)
        if self._next_is("${"):
            return Part(self._bracketed("{", "}"), "variable", is_quoted)
        end = self._at + 1
        if self._text[end : end + 1] in ("@", "*", "#", "?", "$", "!"):
            end += 1
        else:
            while end < len(self._text) and (self._text[end].isalnum() or self._text[end] == "_"):
                end += 1
        name = self._text[self._at + 1 : end]
        self._skip(end - self._at)
        return Part(name, "variable", is_quoted) if name else Part("$", is_quoted=is_quoted)

    def _bracketed(self, opens: str, closes: str) -> str:
        # quotes inside are not looked at: what stands in a command is only shown
        line, start, depth = self._line, self._at + 2, 0
        while self._at < len(self._text):
            char = self._text[self._at]
            depth += (char == opens) - (char == closes)
            self._skip(1)
            if char == closes and depth == 0:
                return self._text[start : self._at - 1]
        raise Unreadable(f"${opens}", line)

    def _operator(self) -> Operator:
        found = next((o for o in OPERATORS if self._next_is(o)), self._text[self._at])
        self._skip(len(found))
        return Operator(found, self._line)

    def _here_texts(self) -> Iterator[HereText]:
        for end in self._ends:
            first, lines = self._line, []
            while self._at < len(self._text):
                stop = self._find("\n", len(self._text))
                line = self._text[self._at : stop]
                self._skip(stop - self._at + 1)
                if line.strip() == end:
                    break
                lines.append(line)
            yield HereText("\n".join(lines), first)
        self._ends = []

    def _take(self, end: int, quote: int) -> Part:
        text = self._text[self._at + quote : end]
        self._skip(end + quote - self._at)
        return Part(text, is_quoted=True)

    def _end_of(self, quote: str, what: str) -> int:
        end = self._text.find(quote, self._at + 1)
        if end < 0:
            raise Unreadable(what, self._line)
        return end

    def _find(self, text: str, otherwise: int) -> int:
        found = self._text.find(text, self._at)
        return otherwise if found < 0 else found

    def _next_is(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _one(self) -> str:
        char = self._text[self._at : self._at + 1]
        self._skip(1)
        return char

    def _skip(self, count: int) -> None:
        self._line += self._text.count("\n", self._at, self._at + count)
        self._at += count
