r"""Secrets taken out of text, in every form in which programs print them.

    s3cr%t/x   as it is, in a URL (s3cr%25t%2Fx), in base64 wherever it begins in the encoded text,
               in JSON, in a Python literal, and as `set -x`, `declare -p` and `printf %q` show it

One redactor for all: what is shown (logs, why, status), what is written down (events, exit records,
output of builds), and logs themselves (`scrub.py`). Text without a secret costs a search for each
form, at the speed of memory; only text that has one is looked at closely.

Values shorter than 6 characters are left alone: blacking out "1" would garble every line and hide
nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

BLACK = "***"
MIN_SECRET_LENGTH = 6

# compiled when there is a secret: a command that has none must not wait for them
# as log_text.py and last_error.py leave them
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]"
# what bash puts a backslash before: in `printf %q`, and between double quotes
_SHELL = r"([^A-Za-z0-9_@%+=:,./\x80-\U0010ffff-])"
_IN_DOUBLE_QUOTES = r'(["$`\\])'


class Redactor:
    """Takes some values out of texts."""

    def __init__(self, values: Iterable[str], *, shortest: int = MIN_SECRET_LENGTH) -> None:
        found = {form for value in values for form in forms(value, shortest)}
        # the longest first: one secret may be the beginning of another
        self._forms = sorted(found, key=lambda form: (-len(form), form))
        self._bytes = [form.encode("utf-8", "surrogateescape") for form in self._forms]
        self._pattern = re.compile("|".join(map(re.escape, self._forms)))
        self._bytes_pattern = re.compile(b"|".join(map(re.escape, self._bytes)))
        self.longest = max(map(len, self._bytes), default=0)
        """Of any form, in bytes."""

    def __bool__(self) -> bool:
        """Whether there is anything to take out."""
        return bool(self._forms)

    def __call__(self, text: str) -> str:
        """`text` without the values."""
        for form in self._forms:
            if form in text:
                return self._pattern.sub(BLACK, text)
        return text

    def lines(self, lines: list[str]) -> list[str]:
        """The same for many lines at once, which is cheaper."""
        if not self._forms or not lines:
            return lines
        whole = "\n".join(lines)
        if not any(form in whole for form in self._forms):
            return lines
        return [self(line) for line in lines]

    def tree(self, value: Any) -> Any:
        """The same for everything that JSON can hold; keys too."""
        if not self._forms:
            return value
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {self.tree(key): self.tree(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.tree(item) for item in value)
        return value

    def places(self, data: bytes) -> list[tuple[int, int]]:
        """Where values stand in `data`: beginnings and ends."""
        if not any(form in data for form in self._bytes):
            return []
        return [match.span() for match in self._bytes_pattern.finditer(data)]


NOTHING = Redactor(())
"""Hides nothing: there are no secrets, or they are not ours to read."""


def forms(value: str, shortest: int = MIN_SECRET_LENGTH) -> Iterator[str]:
    """Every text that shows a value; of a URL also its password, of many lines each."""
    from urllib.parse import unquote

    parts = {value, value.strip(), *value.splitlines(), *_credentials(value)}
    parts |= {unquote(part) for part in parts}
    for part in parts:
        if len(part.strip()) >= shortest:
            yield from filter(None, _forms_of(part))


def _forms_of(part: str) -> Iterator[str]:
    yield part
    yield re.sub(_CONTROL, "\ufffd", part)
    yield re.sub(_CONTROL, "", part)
    yield from _in_urls(part)
    yield from _in_base64(part.encode("utf-8", "surrogateescape"))
    for is_ascii in (True, False):
        in_json = json.dumps(part, ensure_ascii=is_ascii)[1:-1]
        yield in_json
        yield in_json.replace("/", "\\/")
    # repr chooses one kind of quote and escapes it
    literal = repr(part + "'\"")[1:-4]
    yield literal
    yield literal.replace("\\'", "'")
    yield literal.replace("\\'", "'").replace('"', '\\"')
    # in a shell: set -x, shlex.quote, $'...', declare -p, printf %q
    yield part.replace("'", "'\\''")
    yield part.replace("'", "'\"'\"'")
    yield part.replace("\\", "\\\\").replace("'", "\\'")
    yield re.sub(_IN_DOUBLE_QUOTES, r"\\\1", part)
    yield re.sub(_SHELL, r"\\\1", part)


def _in_urls(part: str) -> Iterator[str]:
    from urllib.parse import quote, quote_plus

    for coded in (quote(part, "", errors="replace"), quote(part, errors="replace")):
        yield coded
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), coded)
    yield quote_plus(part, errors="replace")


def _in_base64(data: bytes) -> Iterator[str]:
    import base64

    # as header values have it: alone, or behind a user name, which shifts it
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + data).decode()
        # the first characters mix with what stands before, the last with what follows
        inner = text[(0, 2, 3)[shift] :].rstrip("=")
        inner = inner if (len(data) + shift) % 3 == 0 else inner[:-1]
        # of a short value too little is left to be told from any other text
        if len(inner) >= MIN_SECRET_LENGTH:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")


def _credentials(value: str) -> Sequence[str]:
    from urllib.parse import urlsplit

    try:
        found = urlsplit(value)
    except ValueError:
        return ()
    if not found.hostname or not (found.username or found.password):
        return ()
    password = found.password or ""
    # a token often stands in the place of the user
    return (f"{found.username or ''}:{password}", password or found.username or "")
