"""Which words of a conversation are trained, and with which weight: the loss mask.

By default the words of assistant and function_call turns, with the mark that ends the turn. Roles
may have weights of their own, single turns may say `weight: 0`, a source may train its last answer
only, or everything. Here are characters and bytes; `token_masks.py` finds the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clusterlm.data.chat import Rendered
from clusterlm.data.convert import Message
from clusterlm.spec.sources import ConversationSource

TRAINED_ROLES = {"assistant": 1.0, "function_call": 1.0}


class Target(NamedTuple):
    """Bytes [start, end) of the rendered text that are trained; `code` is their weight's place."""

    start: int
    end: int
    code: int


class Targets:
    """Finds the targets of the conversations of one source."""

    def __init__(self, source: ConversationSource) -> None:
        weights = TRAINED_ROLES | dict(source.role_weights)
        self.table = weight_table(source)
        self._codes = {role: self.table.index(weight) for role, weight in weights.items() if weight}
        self._everything = not source.only_target_loss
        self._last_only = source.train_turns == "last"

    def of(self, rendered: Rendered, messages: Sequence[Message]) -> list[Target]:
        """The targets, in order; none when there is nothing to train."""
        text = rendered.text
        if self._everything:
            return [Target(0, len(text.encode()), 1)]
        codes = self._codes
        chosen = []
        for start, end, number in rendered.spans:
            message = messages[number]
            code = codes.get(message["role"])
            if code is not None and message.get("weight", 1) and start < end:
                chosen.append((start, end, code))
        if self._last_only:
            chosen = chosen[-1:]
        return _in_bytes(text, chosen)


def weight_table(source: ConversationSource) -> tuple[float, ...]:
    """The weights that codes mean; code 0 is never trained."""
    weights = (TRAINED_ROLES | dict(source.role_weights)).values()
    return (0.0, *sorted({weight for weight in weights if weight}))


def is_coded(source: ConversationSource) -> bool:
    """Whether a bit for each token is not enough."""
    return set(weight_table(source)) != {0.0, 1.0}


def _in_bytes(text: str, spans: Sequence[tuple[int, int, int]]) -> list[Target]:
    if text.isascii():
        return [Target(*span) for span in spans]
    targets = []
    done = num_bytes = 0
    for start, end, code in spans:
        first = num_bytes + len(text[done:start].encode())
        num_bytes = first + len(text[start:end].encode())
        done = end
        targets.append(Target(first, num_bytes, code))
    return targets
