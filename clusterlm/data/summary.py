"""Counts of a preprocessing: into the manifest, and out of it as a table for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from clusterlm.data import convert
from clusterlm.data.looks.short_path import short_path
from clusterlm.data.store.documents import BAD
from clusterlm.data.whole import Manifest

REASONS = {
    BAD: "cannot be used",
    **convert.REASONS,
    "refused_by_template": "refused by the chat template",
    "too_many_tokens": "of more tokens than max_tokens",
}
"""Why a record is left out while it is read, as counted and in words."""

CHOICES = {
    "not_asked_for": "not asked for by split or max_documents",
    "duplicate": "seen before",
    "near_duplicate": "nearly seen before",
    "contaminated": "hold parts of the validation set",
}
"""Why a document that was read is not taken."""

PLANNED = {
    "overlong": "longer than a block",
    "truncated": "cut to a block",
    "untrained": "nothing to train in the part that fits",
    "not_sampled": "not seen, since the source is seen less than once",
}
"""Why a kept document is in no block, or only a part of it."""

NOTES = convert.NOTES
"""What else is told."""

LOST = {
    "tail": "behind the last block",
    "between": "between the end of a block and the next legal start",
    "overlong": "in conversations longer than a block",
    "truncated": "cut off from conversations",
    "untrained": "in conversations cut to nothing to train",
}
"""Why a token is in no block."""


def counts_of(
    counts: Sequence[Counter[str]],
    places: Sequence[tuple[str, str]],
    sizes: Sequence[tuple[int, int]],
    kept: Sequence[tuple[int, int, int]],
) -> Manifest:
    """What is counted in all and by source.

    Args:
        counts: of each source.
        places: of each source: where it stands in the YAML, and where it lay.
        sizes: files and bytes of each.
        kept: documents, tokens, trained tokens of each that are kept.
    """
    rows = [
        {"place": place, "path": path, "files": size[0], "bytes": size[1], **_counted(own, part)}
        for (place, path), size, own, part in zip(places, sizes, counts, kept, strict=True)
    ]
    total = tuple(sum(part[i] for part in kept) for i in range(3))
    return {
        "counts": _counted(sum(counts, Counter[str]()), (total[0], total[1], total[2])),
        "sources": rows,
    }


def dropped_in_words(counts: Mapping[str, int]) -> str:
    """`3 seen before, 1 empty`; empty when nothing was left out."""
    words = REASONS | CHOICES
    return ", ".join(f"{counts[key]:,} {text}" for key, text in words.items() if counts.get(key))


def size_in_words(num_bytes: float) -> str:
    """Decimal: 812 kB, 34 MB, 1.2 GB."""
    if num_bytes < 1e3:
        return f"{num_bytes:.0f} bytes"
    if num_bytes < 1e6:
        return f"{num_bytes / 1e3:.0f} kB"
    return f"{num_bytes / 1e6:.0f} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:.1f} GB"


def summary_of(manifest: Manifest) -> str:
    """The table printed at the end of the phase."""
    head = ("source", "read", "documents", "kept", "tokens", "trained", "epochs", "left out")
    epochs = {use["place"]: use["epochs"] for use in manifest["splits"]["train"]["sources"]}
    lines = aligned([head, *(_source_row(row, epochs) for row in manifest["sources"])])
    lines += _notes(manifest)
    splits = manifest["splits"]
    lines += [
        "",
        *aligned(
            [
                ("split", "documents", "blocks", "tokens", "trained", "filled", "lost"),
                *(_split_row(name, split) for name, split in splits.items()),
            ]
        ),
    ]
    packed = ", ".join(f"{kind} {how}" for kind, how in manifest["packing_of_kinds"].items())
    lines.append(
        f"blocks of {manifest['block_size']} tokens ({packed}), vocabulary of"
        f" {manifest['vocab_size']}"
    )
    return "\n".join(lines)


def _counted(counts: Mapping[str, int], kept: tuple[int, int, int]) -> dict[str, Any]:
    return {
        "documents": counts.get("documents", 0),
        "kept": kept[0],
        "tokens": kept[1],
        "supervised_tokens": kept[2],
        "dropped": {key: counts[key] for key in REASONS | CHOICES if counts.get(key)},
        "notes": {key: counts[key] for key in NOTES if counts.get(key)},
    }


def _notes(manifest: Manifest) -> list[str]:
    lines = []
    for key, words in NOTES.items():
        if number := manifest["counts"]["notes"].get(key):
            lines.append(f"{number:,} {words}")
    near = manifest["dedup"]
    if near["num_compared"]:
        lines.append(f"near duplicates: {near['num_compared']:,} pairs compared")
    for name, split in manifest["splits"].items():
        found = ", ".join(
            f"{number:,} {PLANNED[key]}" for key, number in split["dropped"].items() if number
        )
        lines += [f"{name}: {found}"] if found else []
        lost = ", ".join(
            f"{number:,} {LOST[key]}" for key, number in split["lost"].items() if number
        )
        lines += [f"{name}: tokens in no block: {lost}"] if lost else []
    lines += [f"not usable: {record}" for record in manifest["bad_records"]]
    if manifest["quarantined"]:
        lines.append(f"{manifest['quarantined']:,} records in quarantine.jsonl")
    if missing := manifest.get("not_quarantined"):
        lines.append(f"{missing:,} more that cannot be used are counted only, and not copied there")
    return lines


def _source_row(source: Mapping[str, Any], epochs: Mapping[str, float]) -> tuple[str, ...]:
    return (
        f"{source['place'].removeprefix('data.')} {short_path(source.get('path', ''))}".strip(),
        size_in_words(source["bytes"]),
        f"{source['documents']:,}",
        f"{source['kept']:,}",
        f"{source['tokens']:,}",
        f"{source['supervised_tokens']:,}",
        f"{epochs.get(source['place'], 1.0):.3g}",
        dropped_in_words(source["dropped"]) or "-",
    )


def _split_row(name: str, split: Mapping[str, Any]) -> tuple[str, ...]:
    room = split["tokens"] + split["padding"]
    lost = sum(split["lost"].values())
    return (
        name,
        f"{split['documents']:,}",
        f"{split['blocks']:,}",
        f"{split['tokens']:,}",
        f"{split['supervised_tokens']:,}",
        f"{split['tokens'] / room:.1%}" if room else "-",
        f"{lost / (lost + split['tokens']):.2%}" if lost else "-",
    )


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first and the last column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
