"""Tokens of a run: all of them, and those that are not padding.

Both follow from the order of the blocks, so they are the same whatever stopped and resumed between.
"""

from __future__ import annotations

from clusterlm.data.blocks import Blocks
from clusterlm.train.blocks import BlockOrder, count_tokens


class TokenCount:
    """Counts the tokens of steps, over all ranks."""

    def __init__(
        self,
        blocks: Blocks,
        *,
        seed: int,
        blocks_per_step: int,
        has_padding: bool,
        moved: int = 0,
    ) -> None:
        """`has_padding` may be true without any; then counting takes time for nothing.

        `moved` is how far the order was moved on, see `resume.py`.
        """
        self._blocks = blocks
        self._order = BlockOrder(len(blocks), seed)
        self._order.moved = moved
        self._blocks_per_step = blocks_per_step
        self._has_padding = has_padding

    def tokens_at(self, step: int) -> int:
        """Places of all blocks after `step` optimizer steps."""
        moved = self._order.moved * self._blocks.block_size
        return moved + count_tokens(
            step,
            num_blocks=len(self._blocks),
            blocks_per_step=self._blocks_per_step,
            block_size=self._blocks.block_size,
        )

    def unpadded_between(self, before: int, until: int) -> int:
        """Tokens without padding of the steps behind `before`, up to `until`."""
        if not self._has_padding:
            return self.tokens_at(until) - self.tokens_at(before)
        steps = range(before, until)
        return sum(self._blocks.num_filled(block) for s in steps for block in self.blocks_of(s + 1))

    def blocks_of(self, step: int) -> list[int]:
        """The blocks of optimizer step 1, 2, ...; those of rank 0 first."""
        steps_per_epoch = -(-len(self._blocks) // self._blocks_per_step)
        self._order.epoch, place = divmod(step - 1, steps_per_epoch)
        first = place * self._blocks_per_step
        last = first + self._blocks_per_step
        blocks: list[int] = self._order.permutation()[first:last].tolist()
        return blocks
