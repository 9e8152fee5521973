"""Pages of HTML that stand alone: no script, nothing from outside, whatever is in the data escaped.

What cannot be seen is shown as an escape here too: marks that turn the direction of writing work in
a browser as they do in a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from clusterlm.data.looks.token_words import visible
from clusterlm.spec.wording import printable

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""

_STYLE = """
:root { --ink: #1c1917; --soft: #57534e; --line: #d6d3d1; --ground: #fafaf9; --bar: #15803d;
  --on-a: #bbf7d0; --on-b: #86efac; --part-a: #bfdbfe; --part-b: #93c5fd; --off-a: #f5f5f4;
  --off-b: #e7e5e4; --special: #a16207; }
@media (prefers-color-scheme: dark) { :root { --ink: #f5f5f4; --soft: #a8a29e; --line: #44403c;
  --ground: #1c1917; --bar: #4ade80; --on-a: #14532d; --on-b: #1c7a42; --part-a: #1e3a8a;
  --part-b: #2f55c4; --off-a: #292524; --off-b: #3a3532; --special: #fde047; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; font-weight: 600; }
p { margin: .3rem 0; color: var(--soft); } pre, code { font-family: ui-monospace, monospace; }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .8rem .15rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child, .text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
.scroll { overflow-x: auto; }
.bar { display: inline-block; height: .8em; background: var(--bar); vertical-align: baseline; }
td.chart { width: 22rem; text-align: left; }
.tokens { white-space: pre-wrap; overflow-wrap: anywhere; font: 14px/1.7 ui-monospace, monospace;
  border: 1px solid var(--line); padding: .6rem; border-radius: 4px; }
.tokens span { padding: .1em 0; } .tokens span:hover { outline: 1px solid var(--ink); }
.a { background: var(--off-a); } .b { background: var(--off-b); }
.y.a { background: var(--on-a); } .y.b { background: var(--on-b); }
.w.a { background: var(--part-a); } .w.b { background: var(--part-b); }
.s { color: var(--special); font-weight: 600; }
"""


class Bar(NamedTuple):
    """A row of a bar chart: its name, how long, and the cells behind."""

    name: str
    value: float
    cells: tuple[str, ...] = ()


def page(title: str, body: Sequence[str]) -> str:
    """A whole page; `body` is HTML, the title is not."""
    return _HEAD.format(title=text(title), style=_STYLE, body="\n".join(body))


def text(words: str) -> str:
    """Text of one line, fit for HTML and for an attribute."""
    return escape(printable(words), quote=True)


def lines(words: str) -> str:
    """Text whose newlines stay."""
    return escape(visible(words), quote=True)


def heading(words: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{text(words)}</h{level}>"


def paragraph(words: str) -> str:
    """A paragraph."""
    return f"<p>{text(words)}</p>"


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: Sequence[int] = (0,)
) -> str:
    """A table; the columns of `texts` stand to the left, and may be broken."""

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=text' if n in texts else ''}>{text(cell)}</{tag}>"
            for n, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>\n" for row in rows)
    return f'<div class="scroll"><table><tr>{cells(head, "th")}</tr>\n{body}</table></div>'


def bars(head: Sequence[str], rows: Sequence[Bar]) -> str:
    """A chart of lying bars, the longest as wide as there is room."""
    most = max((row.value for row in rows), default=0.0) or 1.0
    named = "".join(f"<th>{text(cell)}</th>" for cell in (head[0], "", *head[1:]))
    body = "".join(
        f'<tr><td>{text(row.name)}</td><td class="chart">'
        f'<span class="bar" style="width:{100 * row.value / most:.1f}%"></span></td>'
        f"{''.join(f'<td>{text(cell)}</td>' for cell in row.cells)}</tr>\n"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{named}</tr>\n{body}</table></div>'
