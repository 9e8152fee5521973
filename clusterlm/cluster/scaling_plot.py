"""The picture of a scaling measurement: a bar for each size, its height tokens/s per rank. SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from clusterlm.cluster.scaling_report import Measured, efficiency

HEIGHT, TOP, BOTTOM, LEFT = 360, 56, 64, 24
BAR, GAP = 72, 36
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1c1917}.soft{fill:#57534e}.bar{fill:#15803d}"
    ".low{fill:#b45309}line{stroke:#57534e;stroke-dasharray:4 4}"
)
LOW = 0.75


def plot(name: str, measured: Sequence[Measured]) -> str:
    """A picture that stands alone; the dashed line is where perfect scaling would be."""
    known = [one for one in measured if one.tokens_per_s_per_rank]
    shares = [share for share in efficiency(measured) if share]
    width = LEFT * 2 + max(3, len(known)) * (BAR + GAP) + 120
    most = max((one.tokens_per_s_per_rank or 0.0 for one in known), default=1.0)
    room = HEIGHT - TOP - BOTTOM
    parts = [_text(LEFT, 24, f"{name}: tokens/s per rank, and efficiency against the smallest")]
    for number, (one, share) in enumerate(zip(known, shares, strict=True)):
        each = one.tokens_per_s_per_rank or 0.0
        x, height = LEFT + number * (BAR + GAP), room * each / most
        y = HEIGHT - BOTTOM - height
        kind = "low" if share < LOW else "bar"
        parts += [
            f'<rect class="{kind}" x="{x}" y="{y:.1f}" width="{BAR}" height="{height:.1f}"/>',
            _text(x + BAR / 2, y - 6, f"{share:.0%}", middle=True),
            _text(x + BAR / 2, HEIGHT - BOTTOM + 18, f"{each:,.0f}", middle=True),
            _text(x + BAR / 2, HEIGHT - BOTTOM + 36, _place(one), middle=True, soft=True),
        ]
    if known:
        base = min(known, key=lambda one: one.size.ranks).tokens_per_s_per_rank or 0.0
        y = HEIGHT - BOTTOM - room * base / most
        end = LEFT + len(known) * (BAR + GAP)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{end}" y2="{y:.1f}"/>')
        parts.append(_text(end + 4, y + 4, "100 %", soft=True))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" '
        f'height="{HEIGHT}">\n<style>{STYLE}</style>\n'
        f'<rect width="100%" height="100%" fill="#fafaf9"/>\n{body}\n</svg>\n'
    )


def _place(one: Measured) -> str:
    return f"{one.size.nodes} x {one.size.ranks_per_node}"


def _text(x: float, y: float, words: str, *, middle: bool = False, soft: bool = False) -> str:
    anchor = ' text-anchor="middle"' if middle else ""
    kind = ' class="soft"' if soft else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{anchor}{kind}>{escape(words)}</text>'
