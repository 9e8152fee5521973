"""A shell script as the commands it would run, with its variables filled in. Nothing is run.

What a variable holds is known when the script sets it, or gives a default (`${X:-y}`). Every other
name stays in the words as a mark, so that the importer can say which value is missing:
`unset_in("a\ue000X\ue001")` is ["X"]. Every branch of an `if` is read, one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from clusterlm.importing.words import CLOSE, OPEN, HereText, Lexer, Operator, Part, Token, Word

KEYWORDS = ("if", "then", "else", "elif", "do", "while", "until", "!", "{", "(")
ENDS = ("fi", "done", "esac", "}", "for", "case", "select", "function", "in")
DECLARATIONS = ("export", "declare", "local", "readonly", "typeset")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?)=")


@dataclass
class Command:
    """One command, with its variables filled in.

    Attributes:
        argv: its words; empty for `A=1` alone.
        line: 1-based line of its first word.
        env: what is set for it alone, `A=1 command`.
        used: names of variables that were filled in.
    """

    argv: list[str]
    line: int
    env: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)


@dataclass
class Script:
    """What a script says.

    Attributes:
        commands: in order, those within `if` and `for` too.
        variables: as they are at the end, also those that an earlier script exported.
        exported: names that programs it starts would see.
        sbatch: options of #SBATCH lines, with their line.
        files: what here-documents write, by name of the file.
        has_conditions: not every command may be run.
        mended: lines that begin with an option: a backslash is missing above.
    """

    commands: list[Command] = field(default_factory=list)
    variables: dict[str, list[str]] = field(default_factory=dict)
    exported: dict[str, str] = field(default_factory=dict)
    sbatch: list[tuple[int, str]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    has_conditions: bool = False
    mended: list[int] = field(default_factory=list)


def read_script(text: str, before: Script | None = None, line: int = 1) -> Script:
    """Read a script; `before` is what calls it, whose variables it sees.

    Raises:
        Unreadable: a quote or bracket is never closed.
    """
    script = Script()
    if before is not None:
        script.variables |= before.variables
    for number, row in enumerate(text.splitlines(), start=line):
        if match := re.match(r"\s*#SBATCH\s+(.*)", row):
            script.sbatch.append((number, match[1]))
    for words, here, target in _statements(Lexer(text, line).tokens()):
        _run_through(words, script)
        if here is not None and target is not None:
            script.files["".join(_expand(target, script, set()))] = here.text
    return script


def unset_in(text: str) -> list[str]:
    """Names, or commands, whose value is not in the script."""
    return re.findall(f"{OPEN}([^{CLOSE}]*){CLOSE}", text)


def absence_of(text: str) -> str:
    """Which value a text lacks, and why."""
    missing = unset_in(text)
    names = ", ".join(f"${name}" for name in missing)
    is_command = any(name.startswith("(") for name in missing)
    when = "known only when the script runs" if is_command else "not set in the script"
    return f"{names} {'are' if len(missing) > 1 else 'is'} {when}"


def readable(text: str) -> str:
    """The text as it stands in the script, `$NAME` for what is not known."""
    return re.sub(f"{OPEN}([^{CLOSE}]*){CLOSE}", r"$\1", text)


def _statements(
    tokens: Iterable[Token],
) -> Iterator[tuple[list[Word], HereText | None, Word | None]]:
    """Words of one command, the here-document it gets, and the file it is written to."""
    words: list[Word] = []
    target: Word | None = None
    last: tuple[list[Word], Word | None] = ([], None)
    skips = writes = False
    for token in tokens:
        if isinstance(token, HereText):
            # the command above it has gone already; what it writes has not
            yield [], token, last[1]
        elif isinstance(token, Word):
            target = token if writes else target
            if not skips:
                words.append(token)
            skips = writes = False
        elif token.text[0] in "<>" or token.text.startswith("&>"):
            # 2> log: the number belongs to the sign
            if words and words[-1].plain.isdigit() and token.text[0] == ">":
                words.pop()
            skips, writes = True, token.text.startswith(">")
        else:
            yield words, None, None
            words, last, target = [], (words, target), None
            skips = writes = False
    yield words, None, None


def _run_through(words: list[Word], script: Script) -> None:
    """Take one command in: its assignments, or its words."""
    while words and words[0].plain in KEYWORDS:
        script.has_conditions |= words[0].plain in ("if", "elif", "while", "until")
        words = words[1:]
    if not words or words[0].plain in ENDS:
        script.has_conditions |= bool(words) and words[0].plain in ("for", "case")
        return
    if words[0].plain in DECLARATIONS:
        for word in words[1:]:
            name = _assign(word, script) or word.plain
            if words[0].plain == "export" and name.isidentifier():
                script.exported[name] = " ".join(script.variables.get(name, []))
        return
    own: dict[str, str] = {}
    shadow = Script(variables=dict(script.variables))
    while words and (set_here := _assign(words[0], shadow)):
        own[set_here] = " ".join(shadow.variables[set_here])
        words = words[1:]
    if not words:
        script.variables = shadow.variables
        return
    used: set[str] = set()
    argv = [text for word in words for text in _expand(word, script, used)]
    if argv and argv[0].startswith("-") and script.commands:
        script.mended.append(words[0].line)
        script.commands[-1].argv += argv
        script.commands[-1].used |= used
    elif argv:
        script.commands.append(Command(argv, words[0].line, own, used))


def _assign(word: Word, script: Script) -> str | None:
    """The name that a word sets, if it does."""
    text = ""
    for part in word.parts:
        if part.kind != "text" or part.is_quoted:
            break
        text += part.text
    match = _ASSIGNMENT.match(text)
    if match is None:
        return None
    name, adds = match[1], bool(match[2])
    if word.items is not None:
        value = [text for item in word.items for text in _expand(item, script, set())]
    else:
        rest = Word(word.line, _without(word.parts, match.end()))
        value = ["".join(_filled(part, script, set())[0] for part in rest.parts)]
    old = script.variables.get(name, []) if adds else []
    is_list = word.items is not None or len(old) > 1
    script.variables[name] = old + value if is_list else ["".join(old) + "".join(value)]
    return name


def _without(parts: list[Part], count: int) -> list[Part]:
    """The parts behind the first `count` characters; those are parts of one character each."""
    return parts[count:]


def _expand(word: Word, script: Script, used: set[str]) -> list[str]:
    """The texts that a word becomes: one, or several where a list or an unquoted value is cut."""
    texts = [""]
    is_something = False
    for part in word.parts:
        filled = _filled(part, script, used)
        is_something |= part.is_quoted or part.kind != "variable"
        if part.kind != "variable" or (part.is_quoted and not _is_all(part.text)):
            texts[-1] += " ".join(filled)
            continue
        pieces = filled if part.is_quoted else [w for text in filled for w in _cut(text)]
        is_something |= bool(pieces)
        if pieces:
            texts[-1] += pieces[0]
            texts += pieces[1:]
    return texts if is_something else []


def _cut(text: str) -> list[str]:
    """Pieces between spaces; the mark of an unknown value is never cut."""
    return re.findall(rf"(?:{OPEN}[^{CLOSE}]*{CLOSE}|[^\s])+", text)


def _is_all(expression: str) -> bool:
    return expression.endswith(("[@]", "[*]")) or expression in ("@", "*")


def _filled(part: Part, script: Script, used: set[str]) -> list[str]:
    """What a part becomes; several texts when it is a list."""
    if part.kind == "text":
        return [part.text]
    if part.kind == "command":
        return [f"{OPEN}({part.text.strip('()').strip()}){CLOSE}"]
    match = re.match(r"([A-Za-z_][A-Za-z0-9_]*|\d+)(\[[@*0-9]+\])?", part.text)
    if match is None:
        return [f"{OPEN}{part.text}{CLOSE}"]
    name, rest = match[1], part.text[match.end() :]
    used.add(name)
    value = script.variables.get(name)
    if value is not None and (not rest or (rest[0] == ":" and rest[1:2] in "-=?")):
        texts = value if match[2] and _is_all(match[0]) else value[:1]
        if not rest or any(texts):
            return texts
    default = re.match(r":?[-=](.*)", rest, re.DOTALL)
    if default and not rest.startswith(": "):
        return [_fill_text(default[1], script, used)]
    return [f"{OPEN}{name}{CLOSE}" if not rest else f"{OPEN}{{{part.text}}}{CLOSE}"]


def _fill_text(text: str, script: Script, used: set[str]) -> str:
    """A default, which may name variables itself."""
    tokens = [t for t in Lexer(f'"{text}"').tokens() if not isinstance(t, Operator)]
    words = [token for token in tokens if isinstance(token, Word)]
    return " ".join(piece for word in words for piece in _expand(word, script, used)).strip("\"'")
