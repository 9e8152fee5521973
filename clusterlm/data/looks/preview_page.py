"""A preview as a page of HTML: trained tokens on green, with id and weight under the pointer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clusterlm.data.looks.page import heading, lines, page, paragraph, text
from clusterlm.data.looks.preview import Seen, SourcePreview
from clusterlm.data.looks.preview_lines import counted, reasons_of, shortened
from clusterlm.data.looks.token_words import Token

HEAD_TOKENS, TAIL_TOKENS = 4000, 1000
"""Shown of a longer document."""

_LEGEND = (
    '<p class="tokens"><span class="a y">trained</span> <span class="a w">trained with a weight'
    '</span> <span class="a">not trained</span> <span class="a s">special token</span></p>'
)


def preview_page(name: str, previews: Sequence[SourcePreview], notes: Sequence[str] = ()) -> str:
    """The page.

    Args:
        name: of the job.
        previews: one of each source.
        notes: what is to be said about all of it.
    """
    body = [*map(paragraph, notes), _LEGEND]
    for preview in previews:
        body += _source(preview)
    return page(f"{name}: preview of the data", body)


def _source(preview: SourcePreview) -> Iterator[str]:
    yield heading(f"{preview.place} ({preview.source.kind})")
    yield paragraph(preview.path)
    if not preview.seen:
        yield paragraph(f"nothing that can be used in the first {preview.num_records:,} records")
    for seen in preview.seen:
        yield heading(seen.place, 3)
        yield paragraph("; ".join(counted(seen)))
        yield f'<div class="tokens">{_tokens(seen)}</div>'
    if reasons := reasons_of(preview):
        yield heading(reasons, 3)
    for one in preview.left_out:
        yield paragraph(f"{one.place}: {one.detail}")
    yield from (paragraph(f"note: {note}") for note in preview.notes)


def _tokens(seen: Seen) -> str:
    front, left_out, back = shortened(seen.tokens, HEAD_TOKENS, TAIL_TOKENS)
    spans = "".join(map(_span, front, range(len(front))))
    if left_out:
        spans += f"\n... {left_out:,} more ...\n" + "".join(map(_span, back, range(len(back))))
    return spans


def _span(token: Token, number: int) -> str:
    kinds = ["ab"[number % 2]]
    if token.weight:
        kinds.append("y" if token.weight == 1.0 else "w")
    if token.is_special:
        kinds.append("s")
    ids = " ".join(map(str, token.ids))
    title = text(f"id {ids}  {token.text!r}  weight {token.weight:g}")
    return f'<span class="{" ".join(kinds)}" title="{title}">{lines(token.text)}</span>'
