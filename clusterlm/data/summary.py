"""Counts of a preprocessing: into the manifest, and out of it as a table for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from clusterlm.data.collect import Collection, Reading
from clusterlm.data.plan import SplitPlan
from clusterlm.data.whole import Manifest

REASONS = {
    "duplicate": "seen before",
    "empty": "empty",
    "bad_record": "cannot be used",
    "not_sampled": "not taken by weight",
    "overlong": "longer than a block",
    "nothing_to_train": "nothing to train in it",
}
"""Why a document is left out, as counted and in words."""

NOTES = {
    "truncated": "conversations cut to a block",
    "inexact_cuts": "cuts in long texts that changed a token",
}


def counts_of(
    readings: Sequence[Reading],
    collection: Collection,
    splits: Mapping[str, SplitPlan],
    *,
    block_size: int,
) -> Manifest:
    """What is counted: in all, by source, by split; and where bad records are."""
    rows = [
        {"place": reading.place, "files": len(reading.files), "bytes": reading.num_bytes}
        | _counts(counts)
        for reading, counts in zip(readings, collection.counts, strict=True)
    ]
    return {
        "counts": _counts(sum(collection.counts, Counter())),
        "sources": rows,
        "bad_records": [f"{place}: {reason}" for place, reason in collection.examples],
        "splits": {
            name: {
                "documents": split.num_documents,
                "blocks": split.plan.num_blocks,
                "tokens": split.plan.num_tokens,
                "supervised_tokens": split.num_supervised,
                "padding": split.plan.num_blocks * block_size - split.plan.num_tokens,
                "dropped_tokens": split.plan.num_dropped,
            }
            for name, split in splits.items()
        },
    }


def dropped_in_words(counts: Mapping[str, int]) -> str:
    """`3 seen before, 1 empty`; empty when nothing was left out."""
    return ", ".join(f"{counts[key]} {words}" for key, words in REASONS.items() if counts.get(key))


def size_in_words(num_bytes: float) -> str:
    """Decimal: 812 kB, 34 MB, 1.2 GB."""
    if num_bytes < 1e6:
        return f"{num_bytes / 1e3:.0f} kB"
    return f"{num_bytes / 1e6:.0f} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:.1f} GB"


def summary_of(manifest: Manifest) -> str:
    """The table printed at the end of the phase."""
    head = ("source", "read", "documents", "kept", "tokens", "left out")
    rows = [head, *(_source_row(source) for source in manifest["sources"])]
    lines = _aligned(rows)
    notes = [
        f"{manifest['counts'][key]} {words}"
        for key, words in NOTES.items()
        if manifest["counts"].get(key)
    ]
    lines += [f"not usable: {record}" for record in manifest["bad_records"]]
    lines += [*notes, ""]
    lines += _aligned(
        [
            ("split", "documents", "blocks", "tokens", "trained", "filled"),
            *(_split_row(name, split) for name, split in manifest["splits"].items()),
        ]
    )
    lines.append(
        f"blocks of {manifest['block_size']} tokens, vocabulary of {manifest['vocab_size']}"
    )
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> dict[str, Any]:
    fixed = {
        key: counts.get(key, 0) for key in ("documents", "kept", "tokens", "supervised_tokens")
    }
    dropped = {key: counts[key] for key in REASONS if counts.get(key)}
    noted = {key: counts[key] for key in NOTES if counts.get(key)}
    return {**fixed, "dropped": dropped, **noted}


def _source_row(source: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        source["place"].removeprefix("data."),
        size_in_words(source["bytes"]),
        f"{source['documents']:,}",
        f"{source['kept']:,}",
        f"{source['tokens']:,}",
        dropped_in_words(source["dropped"]) or "-",
    )


def _split_row(name: str, split: Mapping[str, int]) -> tuple[str, ...]:
    room = split["tokens"] + split["padding"]
    return (
        name,
        f"{split['documents']:,}",
        f"{split['blocks']:,}",
        f"{split['tokens']:,}",
        f"{split['supervised_tokens']:,}",
        f"{split['tokens'] / room:.1%}" if room else "-",
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
