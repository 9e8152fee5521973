"""Curves of `metrics.jsonl` as SVG, one picture a quantity, for a page that stands alone. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 240, 72, 16, 16, 28
MOST_POINTS = 800
"""More are thinned out: a picture has no more places."""
COLOURS = ("var(--bar)", "#b45309")

Point = tuple[float, float]


class Picture(NamedTuple):
    """What is drawn into one picture: a title, and fields with their names."""

    title: str
    fields: Mapping[str, str]


PICTURES = (
    Picture("Loss", {"loss": "training", "eval_loss": "evaluation"}),
    Picture("Learning rate", {"lr": "learning rate"}),
    Picture("Gradient norm", {"grad_norm": "before clipping"}),
    Picture("Tokens/s per rank", {"tokens_per_s_per_gpu": "tokens/s"}),
    Picture("MFU and HFU", {"mfu": "MFU", "hfu": "HFU"}),
    Picture("Time of a step, in seconds", {"step_time_p50": "median", "step_time_p95": "95 %"}),
    Picture("Share of the time waiting for data", {"data_wait": "wait"}),
    Picture("Token accuracy of the evaluation", {"token_accuracy": "accuracy"}),
)


def pictures(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Title and SVG of every picture that has anything to show."""
    spikes = [point for row in rows if row.get("spike") for point in points([row], "loss")]
    for title, fields in PICTURES:
        lines = {name: points(rows, field) for field, name in fields.items()}
        known = {name: line for name, line in lines.items() if line}
        if known:
            yield title, draw(known, marks=spikes if "loss" in fields else ())


def points(rows: Sequence[Mapping[str, Any]], field: str) -> list[Point]:
    """(step, value) where both are numbers."""
    found = [(_number(row.get("step")), _number(row.get(field))) for row in rows]
    return [(x, y) for x, y in found if x is not None and y is not None]


def draw(lines: Mapping[str, Sequence[Point]], *, marks: Sequence[Point] = ()) -> str:
    """Lines over the same axes; marks are circles."""
    everything = [point for line in lines.values() for point in line]
    xs, ys = [x for x, _ in everything], [y for _, y in everything]
    low, high = min(ys), max(ys)
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    box = (min(xs), max(xs), low - room, high + room)
    parts = list(_axes(box))
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_place(p, box) for p in thinned(line)))
        style = f'fill="none" stroke="{colour}" stroke-width="1.5"'
        parts.append(f'<polyline points="{places}" {style}/>')
        name_at = WIDTH - RIGHT - 90 * (len(lines) - number)
        parts.append(f'<text x="{name_at}" y="14" fill="{colour}">{escape(name)}</text>')
    for x, y in (_place(mark, box) for mark in marks):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="none" stroke="#dc2626"/>')
    body = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" font-size="12" '
        f'font-family="system-ui,sans-serif" fill="var(--soft)">\n{body}\n</svg>'
    )


def thinned(line: Sequence[Point]) -> list[Point]:
    """At most MOST_POINTS of a line, and those that stand out: of each stretch its extremes."""
    if len(line) <= MOST_POINTS:
        return list(line)
    size = math.ceil(2 * len(line) / MOST_POINTS)
    kept: list[Point] = []
    for at in range(0, len(line), size):
        stretch = line[at : at + size]
        ends = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept


def _axes(box: tuple[float, float, float, float]) -> Iterator[str]:
    left, right, low, high = box
    for number in range(5):
        value = low + (high - low) * number / 4
        _, y = _place((left, value), box)
        yield (
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" '
            'stroke="var(--line)"/>'
        )
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
        step = left + (right - left) * number / 4
        x, _ = _place((step, low), box)
        yield f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{step:,.0f}</text>'


def _place(point: Point, box: tuple[float, float, float, float]) -> Point:
    left, right, low, high = box
    across = (point[0] - left) / ((right - left) or 1.0)
    up = (point[1] - low) / ((high - low) or 1.0)
    return (
        LEFT + across * (WIDTH - LEFT - RIGHT),
        HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
