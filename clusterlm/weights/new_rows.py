"""How the rows of new entries begin, out of those that the model has.

    weighted_mean   of the old pieces that spell the entry, by their length: 你好 = 3 + 3 bytes of
                    你 and 好, or of the six bytes; an entry that none spell gets the mean
    mean            of all old rows
    random          normal, each column with the mean and standard deviation of the old rows

Sums are in float64. Only rows that are needed are read, some thousand at once.
"""

# N = new rows, P = old pieces that spell them, one behind the other, W = width

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from clusterlm.weights.files import Weights

AT_ONCE = 4096
"""Old rows in memory at once."""

Method = Literal["weighted_mean", "mean", "random"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Spelling:
    """The old pieces that spell each new entry.

    # entry 0 = pieces 5 5 9, entry 1 = none, entry 2 = piece 7
    #   starts [0 3 3 4]   pieces [5 5 9 7]   lengths [1 1 4 3]
    """

    starts: Ints
    """N + 1."""
    pieces: Ints
    """P ids."""
    lengths: Ints
    """P lengths, in bytes."""

    @classmethod
    def of(cls, spelt: list[list[tuple[int, int]]]) -> Spelling:
        """From the (id, length) of each piece of each entry."""
        flat = [pair for pairs in spelt for pair in pairs]
        counts = np.array([0, *map(len, spelt)], dtype=np.int64)
        both = np.array(flat, dtype=np.int64).reshape(-1, 2)
        return cls(np.cumsum(counts), both[:, 0], both[:, 1])


def make_rows(
    weights: Weights,
    name: str,
    *,
    num_old: int,
    num_new: int,
    method: Method,
    spelling: Spelling | None = None,
    seed: int = 0,
) -> npt.NDArray[np.float32]:
    """The new rows of a table.

    Args:
        weights: of the model.
        name: of the table.
        num_old: rows that have been trained: the first ones.
        num_new: how many to make; those that `spelling` does not reach get the mean.
        method: how they begin.
        spelling: for weighted_mean.
        seed: for random.

    Returns:
        float32 of shape (num_new, W).
    """
    width = math.prod(weights.shape(name)[1:])
    mean_W, deviation_W = _mean_and_deviation(weights, name, num_old, width)
    if method == "random":
        # not Python's hash of the name: that is another in each process
        random = np.random.default_rng([seed, *name.encode()])
        return random.normal(mean_W, deviation_W, (num_new, width)).astype(np.float32)
    rows_NW = np.broadcast_to(mean_W, (num_new, width)).astype(np.float32)
    if method == "weighted_mean" and spelling is not None:
        _put_weighted_means(rows_NW, weights, name, spelling)
    return rows_NW


def _put_weighted_means(
    rows_NW: npt.NDArray[np.float32], weights: Weights, name: str, spelling: Spelling
) -> None:
    starts, width = spelling.starts, rows_NW.shape[1]
    spelt = np.flatnonzero(np.diff(starts))
    first = 0
    while first < len(spelt):
        # as many entries as have AT_ONCE pieces, but one at least
        limit = starts[spelt[first]] + AT_ONCE
        count = max(1, int(np.searchsorted(starts[spelt + 1], limit, side="right")) - first)
        some = spelt[first : first + count]
        piece = slice(starts[some[0]], starts[some[-1] + 1])
        old_PW: Floats = _read(weights, name, spelling.pieces[piece], width)
        lengths_P = spelling.lengths[piece].astype(np.float64)
        # entries without pieces have no segment between those that have
        cuts = starts[some] - starts[some[0]]
        sums_NW = np.add.reduceat(old_PW * lengths_P[:, None], cuts, axis=0)
        rows_NW[some] = sums_NW / np.add.reduceat(lengths_P, cuts)[:, None]
        first += count


def _mean_and_deviation(
    weights: Weights, name: str, num_old: int, width: int
) -> tuple[Floats, Floats]:
    total, squares = np.zeros(width), np.zeros(width)
    mean: Floats = total
    # twice through the table: sums of squares alone lose digits
    for seen in ("mean", "deviation"):
        for start in range(0, num_old, AT_ONCE):
            chosen = np.arange(start, min(start + AT_ONCE, num_old), dtype=np.int64)
            some = _read(weights, name, chosen, width)
            if seen == "mean":
                total += some.sum(axis=0)
            else:
                squares += ((some - mean) ** 2).sum(axis=0)
        mean = total / num_old
    return mean, np.sqrt(squares / num_old)


def _read(weights: Weights, name: str, rows: Ints, width: int) -> npt.NDArray[Any]:
    return weights.read_rows(name, rows).reshape(len(rows), width).astype(np.float64)
