"""Which documents are held back from training to measure the loss.

Chosen by content: when documents are added later, those already there stay on their side, and
copies of a document are on the same side. Each side has at least one document. A single text is
parted instead: its end is held back.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clusterlm.data.collect import Table
from clusterlm.data.order import SALT_VALIDATION, uniform_of
from clusterlm.errors import DataError


def split_documents(table: Table, fraction: float) -> tuple[Table, Table]:
    """The documents to train on, and those to validate on.

    Args:
        table: all kept documents.
        fraction: share to hold back of the documents of `data.sources`; 0 for none.

    Raises:
        DataError: there is one conversation only, which cannot be parted.
    """
    if not fraction or not len(table):
        return table.where(~table.is_held_back), table.where(table.is_held_back)
    share = uniform_of(table.keys, SALT_VALIDATION)
    if share.min() == share.max():
        return _part_single(table, fraction)
    # at least the lowest is held back, at least the highest is trained on
    bound = max(fraction, float(np.nextafter(share.min(), 1.0)))
    held_back = (share < bound) & (share < share.max())
    return table.where(~held_back), table.where(held_back)


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
