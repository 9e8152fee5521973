"""best_fit: whole documents in as few blocks as can be found fast; the gaps are padded.

Best-fit decreasing: the longest document first, each into the fullest block it still fits. Never
more than 11/9 of the fewest possible blocks (Johnson 1973); in practice within a block or two of
it, since short documents come last and fill the gaps.

Documents of one length are placed together: the block chosen for one of them is chosen again for
the next as long as it fits. So the work grows with the number of different lengths and not with the
number of documents: a million documents of 200 tokens take a fraction of a second.
"""

from __future__ import annotations

import numpy as np

from clusterlm.data.pack import Plan, cut_overlong, make_plan
from clusterlm.data.store.documents import Numbers


def fit_documents(starts: Numbers, lengths: Numbers, block_size: int) -> Plan:
    """Pack whole documents into blocks; no token is lost.

    With block_size=6 and documents aaa | bb | cccc | dddddddd (longer than a block):

        tokens     d d d d d d    c c c c b b    a a a d d .       . = pad
        positions  0 1 2 3 4 5    0 1 2 3 0 1    0 1 2 0 1 0

    A document longer than a block fills blocks of its own; what is left of it is packed as a
    document of its own.

    Args:
        starts: address of each document, in the order to be trained: of two documents of one
            length the first is placed first.
        lengths: tokens of each document.
        block_size: tokens in a block.
    """
    starts, lengths = cut_overlong(starts, lengths, block_size)
    block = _best_fit(lengths, block_size)
    order = np.argsort(block, kind="stable")
    return make_plan(starts[order], lengths[order], np.bincount(block))


def _best_fit(lengths: Numbers, block_size: int) -> Numbers:
    """The block of each piece, numbered in the order of opening."""
    # a type of 16 bits is sorted in linear time
    room_left = block_size - lengths
    narrow = room_left.astype(np.uint16) if block_size <= 1 << 16 else room_left
    order = np.argsort(narrow, kind="stable")
    placed = np.empty(len(lengths), dtype=np.int64)
    bins = _Bins(block_size)
    in_order = lengths[order]
    bounds = np.flatnonzero(np.diff(in_order)) + 1
    first = 0
    for last in [*bounds.tolist(), len(lengths)] if len(lengths) else []:
        bins.place(int(in_order[first]), placed[first:last])
        first = last
    block = np.empty_like(placed)
    block[order] = placed
    return block


class _Bins:
    """Blocks that are not full, by the room they have left."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._num_blocks = 0
        self._by_room: dict[int, list[Numbers]] = {}
        # bit r is set: there is a block with room r. Python's ints are as wide as needed, so the
        # least room that suffices is found by a shift instead of a search
        self._rooms = 0

    def place(self, length: int, placed: Numbers) -> None:
        """Put len(placed) documents of `length` tokens into blocks; `placed` gets which."""
        done, total = 0, len(placed)
        while done < total:
            room = self._least_room(length)
            fit = room // length
            blocks = self._take(room, -(-(total - done) // fit))
            num_here = min(len(blocks) * fit, total - done)
            placed[done : done + num_here] = np.repeat(blocks, fit)[:num_here]
            done += num_here
            num_full, rest = divmod(num_here, fit)
            self._put(room - fit * length, blocks[:num_full])
            if rest:
                self._put(room - rest * length, blocks[num_full:])

    def _least_room(self, length: int) -> int:
        found = self._rooms >> length
        # x & -x is the lowest bit that is set
        return length + (found & -found).bit_length() - 1 if found else self._block_size

    def _take(self, room: int, wanted: int) -> Numbers:
        """At most `wanted` blocks of this room, new ones where there are none."""
        if not self._rooms >> room & 1:
            blocks = np.arange(self._num_blocks, self._num_blocks + wanted)
            self._num_blocks += wanted
            return blocks
        stack = self._by_room[room]
        blocks = stack.pop()
        if len(blocks) > wanted:
            stack.append(blocks[wanted:])
        elif not stack:
            self._rooms ^= 1 << room
        return blocks[:wanted]

    def _put(self, room: int, blocks: Numbers) -> None:
        if room and len(blocks):
            self._by_room.setdefault(room, []).append(blocks)
            self._rooms |= 1 << room
