"""Files of documentation and code as plain text: HTML, manual pages, gettext, dict, the rest as is.

Plainly: markup goes, words stay. Nothing here needs to be a good converter; the benchmark needs
text as people write it, in many scripts, and not the same menu on every page.
"""

from __future__ import annotations

import gettext
import gzip
import html
import re
from pathlib import Path

_BLOCKS = re.compile(
    r"<(script|style|head|nav|header|footer|form|svg)\b.*?</\1\s*>|<!--.*?-->", re.S | re.I
)
# a tag that ends a line of text in a browser
_BREAKS = re.compile(
    r"</?(p|div|br|li|tr|h[1-6]|pre|table|ul|ol|dl|dt|dd|title|td|th|page|section|note|item)\b[^>]*>",
    re.I,
)
_TAG = re.compile(r"<[^>]{0,2000}>")
_MANY_NEWLINES = re.compile(r"\n[ \t\r\f\v]*\n\s*\n")
_FONT = re.compile(r"\\f(?:\[[^\]]*\]|\(..|.)|\\[&|^%)c]|\\s[-+]?\d")
_ROFF_CHARACTER = re.compile(r"\\\((..)|\\\[([^\]]+)\]")
_ROFF_NAMES = {
    "aq": "'",
    "dq": '"',
    "lq": "“",
    "rq": "”",
    "em": "—",
    "en": "–",
    "hy": "-",
    "bu": "•",
}
_MANUAL = re.compile(r"\.\d[a-z]*(\.gz)?$")


def text_of(path: Path) -> str | None:
    """The words of one file; None: it has none, or is not UTF-8."""
    raw = path.read_bytes()
    name = path.name
    if name.endswith(".mo"):
        return _gettext_text(path)
    if name.endswith((".gz", ".dz")):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError):
            return None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    if name.endswith((".html", ".htm", ".page", ".docbook", ".xml", ".html.gz")):
        text = _html_text(text)
    elif _MANUAL.search(name) and "/man/" in str(path):
        text = _roff_text(text)
    return text.replace("\r\n", "\n")


def _html_text(text: str) -> str:
    text = _BLOCKS.sub("", text)
    text = _TAG.sub("", _BREAKS.sub("\n", text))
    return _MANY_NEWLINES.sub("\n\n", html.unescape(text)).strip() + "\n"


def _roff_text(text: str) -> str:
    r"""Words of a manual page: `.SH NAME` -> `NAME`, `\fBls\fR` -> `ls`, `.\" note` -> nothing."""
    lines = []
    for line in text.split("\n"):
        if line.startswith(("'\\\"", '.\\"', ".de", ".ie", ".el", ".if", ".nr", ".ds", ".TH")):
            continue
        if line.startswith("."):
            macro, _, line = line.partition(" ")
            line = line.replace('"', "")
            if macro in (".SH", ".SS", ".PP", ".TP", ".P", ".Sh", ".Pp"):
                line = "\n" + line
        line = _FONT.sub("", line).replace("\\-", "-").replace("\\e", "\\").replace("\\ ", " ")
        lines.append(_ROFF_CHARACTER.sub(_roff_character, line))
    return _MANY_NEWLINES.sub("\n\n", "\n".join(lines)).strip() + "\n"


def _roff_character(found: re.Match[str]) -> str:
    return _ROFF_NAMES.get(found[1] or found[2], "")


def _gettext_text(path: Path) -> str | None:
    """The translations of a program, one message a paragraph."""
    try:
        with path.open("rb") as file:
            catalog = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    except (OSError, UnicodeDecodeError, ValueError, IndexError):
        return None
    return (
        "\n".join(v for k, v in sorted((str(k), v) for k, v in catalog.items()) if k and v) + "\n"
    )
