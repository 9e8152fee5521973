"""The gate before an engine: its ids on the user's own texts must be those of `tokenizers`.

The first worker encodes the gate's texts before anything else, while the parent lets the reference
encode them; nothing is written before both are compared. So a wrong engine costs a line, and a
right one no time. Tried are texts that are made to be difficult, the longest texts of a sample, and
whether cutting these changes an id.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tokenizers

from clusterlm.data.store.documents import Ids, Numbers
from clusterlm.data.tokens.engine_trial import odd_texts
from clusterlm.data.tokens.engines import TokenizersEngine

GATE_CHARS = 200_000
"""Of the sample, so much: the reference needs 0.1 s for it."""
LONGEST_CHARS = 40_000
_SHOWN_CHARS = 40
_SHOWN_IDS = 6


class EngineRefused(Exception):
    """An engine is not to be used; the text says why."""


class CutsRefused(Exception):
    """Cutting long texts changes their ids."""


class Gate:
    """What an engine must give."""

    def __init__(self, encoder: tokenizers.Tokenizer, sample: Sequence[str]) -> None:
        reference = TokenizersEngine.around(encoder)
        self.texts = [*odd_texts(reference), *_some_of(sample)]
        self._reference = reference
        self._right: tuple[Ids, Numbers] | None = None

    def prepare(self) -> None:
        """Let the reference encode the texts; the workers load meanwhile."""
        self._right = self._right or self._reference.encode(self.texts)

    def difference(self, found: tuple[Ids, Numbers]) -> str | None:
        """The first text for which an engine gave other ids, in words; None when all are right."""
        self.prepare()
        assert self._right is not None
        (right, right_ends), (ids, ends) = self._right, found
        if np.array_equal(right, ids) and np.array_equal(right_ends, ends):
            return None
        for number, text in enumerate(self.texts):
            want = right[slice(*bounds(right_ends, number))]
            have = ids[slice(*bounds(ends, number))]
            if not np.array_equal(want, have):
                return difference_in_words(text, want.tolist(), have.tolist())
        return "gives ids that belong to no text"


def bounds(ends: Numbers, number: int) -> tuple[int, int]:
    """Where the ids of text `number` begin and end."""
    return (int(ends[number - 1]) if number else 0), int(ends[number])


def difference_in_words(text: str, want: list[int], have: list[int]) -> str:
    """What differs for one text."""
    pairs = zip(want, have, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(want), len(have)))
    shown = repr(text[:_SHOWN_CHARS]) + ("..." if len(text) > _SHOWN_CHARS else "")
    part = slice(first, first + _SHOWN_IDS)
    return (
        f"gives other ids than {TokenizersEngine.name} for {shown}:"
        f" {have[part]} and not {want[part]}, from token {first}"
    )


def _some_of(sample: Sequence[str]) -> list[str]:
    """The longest texts first, as far as there is room."""
    chosen, room = [], GATE_CHARS
    for text in sorted(sample, key=len, reverse=True):
        if room <= 0:
            break
        chosen.append(text[: min(room, LONGEST_CHARS)])
        room -= len(chosen[-1])
    return chosen
