"""From the kept documents to the blocks of each split, with the places of what is too long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from clusterlm.data.mix import SourceShare
from clusterlm.data.overlong import OverlongConversation
from clusterlm.data.plan import SplitPlan, plan_splits
from clusterlm.data.reading import Reading
from clusterlm.data.sources import place_of
from clusterlm.data.store.shard_files import ShardFiles
from clusterlm.data.store.stored import Stored
from clusterlm.data.summary import dropped_in_words
from clusterlm.data.tokens.token_bytes import NewlineTokens
from clusterlm.errors import DataError
from clusterlm.spec.data import Data


def plan_blocks(
    stored: Stored,
    readings: Sequence[Reading],
    tokens: ShardFiles,
    data: Data,
    tokenizer: Path,
    examples: Mapping[str, str],
) -> dict[str, SplitPlan]:
    """`train`, and `validation` if something is held back.

    Args:
        stored: the kept documents.
        readings: the sources.
        tokens: of all shards.
        data: the spec.
        tokenizer: its folder.
        examples: of each source that has one, by its place: a record that was left out, and why.

    Raises:
        DataError: nothing is left, it fills no block, or a conversation is too long (where that is
            to stop the run).
    """
    _require_documents(stored, readings, examples)
    shares = [SourceShare.of(reading.place, reading.source) for reading in readings]
    # half a second for 150,000 entries
    of_newlines = data.packing == "paragraph_start"
    none = np.zeros(0, dtype=np.bool_)
    newline = (
        NewlineTokens.of(tokenizer / "tokenizer.json") if of_newlines else NewlineTokens(none, none)
    )
    try:
        return plan_splits(stored.table, data, shares, newline, tokens)
    except OverlongConversation as error:
        files = readings[int(stored.table.source[error.row])].files
        place = place_of(files, int(stored.file[error.row]), int(stored.offset[error.row]))
        raise DataError(f"{place}: {error}") from error


def fractions_of(readings: Sequence[Reading], data: Data) -> list[float]:
    """The share of each source that is held back."""
    own = [reading.source.validation for reading in readings]
    return [data.validation.fraction if share is None else share for share in own]


def _require_documents(
    stored: Stored, readings: Sequence[Reading], examples: Mapping[str, str]
) -> None:
    """Nothing to train on is an error, also when only all conversations fell away."""
    kept = np.bincount(stored.table.source, minlength=len(readings))
    kinds = {
        "conversation": [r.is_conversation and not r.is_held_back for r in readings],
        "document": [not r.is_conversation and not r.is_held_back for r in readings],
        "held back": [r.is_held_back for r in readings],
    }
    for what, members in kinds.items():
        if any(members) and not kept[members].sum():
            counts = [stored.counts[i] for i, is_member in enumerate(members) if is_member]
            places = [r.place for r, is_member in zip(readings, members, strict=True) if is_member]
            example = next((examples[place] for place in places if place in examples), "")
            raise DataError(_nothing_left(what, sum(counts, Counter[str]())) + example)


def _nothing_left(what: str, counts: Counter[str]) -> str:
    left = f"no {what} is left to train on"
    if what == "held back":
        left = "data.validation.sources: nothing is left to validate on"
    reasons = dropped_in_words(counts) or "the files are empty"
    return f"{left}: {counts['documents']} read ({reasons})"
