"""Targets in bytes -> which tokens are trained. A token is, when it begins inside a target.

Where a token begins follows from the bytes of the tokens before it: a byte-level tokenizer keeps
every byte of the text, so no offsets have to be asked for, which would take ten times as long. That
it really did so is seen from the sum; a text for which it is not the same (the tokenizer changed
it, or is of another kind) is encoded again by the Hugging Face library, with offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from clusterlm.data.store.documents import Codes, Ids, Numbers
from clusterlm.data.targets import Target
from clusterlm.data.tokenizer import Vocabulary
from clusterlm.data.tokens.token_bytes import ByteOffsets


class TokenMasks:
    """Finds trained tokens, for a batch of texts at once."""

    def __init__(self, tokenizer: Path, vocabulary: Vocabulary) -> None:
        """Tokenizer: its file; both are looked into only once there is a conversation."""
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary

    @cached_property
    def _offsets(self) -> ByteOffsets | None:
        return ByteOffsets.of(self._tokenizer)

    def codes(
        self, texts: Sequence[str], targets: Sequence[list[Target]], ids: Ids, ends: Numbers
    ) -> Codes:
        """The code of every token of `ids`; 0 where nothing is trained.

        Args:
            texts: the texts that were encoded.
            targets: of each text.
            ids: the tokens of all texts, flat.
            ends: of each text in `ids`.
        """
        begins = np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1]])
        sizes = np.array([len(text.encode()) for text in texts], dtype=np.int64)
        bases = np.cumsum(sizes) - sizes
        if self._offsets is None:
            exact = np.zeros(len(texts), dtype=np.bool_)
            starts = np.zeros(len(ids), dtype=np.int64)
        else:
            widths = self._offsets.lengths[ids]
            upto = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(widths)])
            exact = upto[ends] - upto[begins] == sizes
            exact &= np.array([text.isascii() or self._offsets.keeps(text) for text in texts])
            # every text in a range of bytes of its own, also where another one does not add up
            shift = bases - upto[begins]
            starts = upto[:-1] + np.repeat(shift, ends - begins)
        for i in np.flatnonzero(~exact).tolist():
            here = slice(int(begins[i]), int(ends[i]))
            starts[here] = bases[i] + self._slow_starts(texts[i], ids[here])
        return _codes_of(starts, targets, bases)

    def _slow_starts(self, text: str, ids: Ids) -> Numbers:
        row = self._vocabulary.encoder.encode(text, add_special_tokens=False)
        assert len(row.ids) == len(ids), "the engine and the library disagree"
        starts = np.array([start for start, _ in row.offsets], dtype=np.int64)
        if text.isascii():
            return starts
        # characters -> bytes
        widths = np.array([len(character.encode()) for character in text], dtype=np.int64)
        upto = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(widths)])
        found: Numbers = upto[starts]
        return found


def _codes_of(starts: Numbers, targets: Sequence[list[Target]], bases: Numbers) -> Codes:
    rows = [
        (target.start + base, target.end + base, target.code)
        for base, own in zip(bases.tolist(), targets, strict=True)
        for target in own
    ]
    if not rows:
        return np.zeros(len(starts), dtype=np.uint8)
    first, last, code = np.array(rows, dtype=np.int64).T
    # targets lie apart and in order: codes rise at their beginnings and fall at their ends
    steps = np.zeros(len(starts) + 1, dtype=np.int64)
    np.add.at(steps, np.searchsorted(starts, first, side="left"), code)
    np.subtract.at(steps, np.searchsorted(starts, last, side="left"), code)
    return np.cumsum(steps[:-1]).astype(np.uint8)
