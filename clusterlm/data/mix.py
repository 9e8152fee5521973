"""How often the documents of each source are seen in one pass over the training data.

Three ways to say it, all ending in one number a source, its epochs:

    epochs        said outright; 1 if nothing is said
    weight        share of the trained tokens, relative to the other sources; once one source has
                  it, those without count 1. The pass stays as long as all sources together
    temperature   shares follow tokens ** (1 / temperature), times the weight where there is one

Which documents are seen once more than others (or at all, below 1) is decided by their content, so
a document that is added later changes nothing for those that were there, and a larger number keeps
what a smaller one took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clusterlm.data.order import repeats_of
from clusterlm.data.store.documents import Numbers
from clusterlm.data.table import Table
from clusterlm.spec.sources import Source


@dataclass(frozen=True)
class SourceShare:
    """What a source says about its part; one each in reading order.

    Attributes:
        place: where it stands in the YAML.
        epochs: how often it is seen in one pass, unless shares are asked for.
        weight: share of the trained tokens, relative to the others.
        validation: share that is held back, in place of the one for all.
    """

    place: str
    epochs: float = 1.0
    weight: float | None = None
    validation: float | None = None

    @classmethod
    def of(cls, place: str, source: Source) -> SourceShare:
        """What the spec says."""
        return cls(place, source.epochs, source.weight, source.validation)


def tokens_of_sources(table: Table, num_sources: int) -> Numbers:
    """Trained tokens of each source."""
    sums = np.bincount(table.source, weights=table.num_supervised, minlength=num_sources)
    return sums.astype(np.int64)


def epochs_of_sources(
    num_tokens: Sequence[int], sources: Sequence[SourceShare], temperature: float | None
) -> list[float]:
    """How often each source is seen in one pass; 0 where shares are asked for and it has nothing.

    With 300 and 100 tokens and weights 1 and 1: 2/3 and 2, so that each gives 200 of the 400.

    Args:
        num_tokens: trained tokens of each source.
        sources: what each asks for.
        temperature: `data.mix.temperature`.
    """
    if temperature is None and all(source.weight is None for source in sources):
        return [source.epochs for source in sources]
    power = 0.0 if temperature is None else 1.0 / temperature
    shares = [
        (1.0 if source.weight is None else source.weight) * count**power if count else 0.0
        for source, count in zip(sources, num_tokens, strict=True)
    ]
    total, all_shares = sum(num_tokens), sum(shares)
    return [
        share / all_shares * total / count if count else 0.0
        for share, count in zip(shares, num_tokens, strict=True)
    ]


def repeats_of_documents(table: Table, epochs: Sequence[float]) -> Numbers:
    """How often each document is seen in one pass."""
    if all(number == 1.0 for number in epochs):
        return np.ones(len(table), dtype=np.int64)
    return repeats_of(table.keys, np.array(epochs, dtype=np.float64)[table.source])
