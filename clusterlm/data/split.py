"""Which documents are held back from training to measure the loss.

Chosen by content: when documents are added later, those already there stay on their side, and
copies of a document are on the same side, whatever source they come from. Each side has at least
one document. A single text is parted instead: its end is held back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from clusterlm.data.order import SALT_VALIDATION, uniform_of
from clusterlm.data.table import Table
from clusterlm.errors import DataError


def split_documents(table: Table, fractions: Sequence[float]) -> tuple[Table, Table]:
    """The documents to train on, and those to validate on.

    Args:
        table: all kept documents.
        fractions: share to hold back of each source, in reading order; 0 for none. Sources of
            `data.validation.sources` are held back whole, whatever it says.

    Raises:
        DataError: there is one conversation only, which cannot be parted.
    """
    wanted = np.array(fractions, dtype=np.float64)[table.source]
    wanted[table.is_held_back] = 0.0
    if not wanted.any():
        return table.where(~table.is_held_back), table.where(table.is_held_back)
    share = uniform_of(table.keys, SALT_VALIDATION)
    is_open = ~table.is_held_back
    if not table.is_held_back.any() and share.min() == share.max():
        return _part_single(table, float(wanted.max()))
    held_back = _lowest(table, share, wanted) | table.is_held_back
    if (held_back | ~is_open).all():
        # at least the highest is trained on
        held_back = table.is_held_back | (is_open & (share < share[is_open].max()))
    return table.where(~held_back), table.where(held_back)


def _lowest(
    table: Table, share: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Documents whose share is below what is wanted of their source, with all their copies."""
    chosen = share < wanted
    if not chosen.any() and not table.is_held_back.any():
        # at least the lowest is held back
        chosen = share == share[wanted > 0].min()
    if len(np.unique(wanted)) > 1:
        # what is held back of one source must not be trained on from another
        chosen = np.isin(table.keys, table.keys[chosen])
    return chosen & ~table.is_held_back


def _part_single(table: Table, fraction: float) -> tuple[Table, Table]:
    length = int(table.lengths[0])
    if len(table) > 1 or table.is_chat.any() or length < 2:
        what = "conversation" if table.is_chat.any() else "document"
        copies = f", {len(table)} times" if len(table) > 1 else ""
        raise DataError(
            f"data.validation.fraction: {fraction} of one {what}{copies} cannot be held back;"
            " add others, or set data.validation.sources"
        )
    num_back = min(length - 1, max(1, round(length * fraction)))
    num_front = length - num_back
    return (
        replace(table, lengths=np.array([num_front])),
        replace(table, lengths=np.array([num_back]), starts=table.starts + num_front),
    )
